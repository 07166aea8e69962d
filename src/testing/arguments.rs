//! What raw arguments of a server say of how to reach it.

use std::path::PathBuf;

/// The arguments that decide where a server listens and whom it lets in; of each, the last counts, as for the server.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) port: Option<u16>,
    pub(super) tls_port: Option<u16>,
    pub(super) password: Option<String>,
    /// Name and rules.
    pub(super) users: Vec<(String, Vec<String>)>,
    pub(super) acl_file: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    /// Whether clients must have a certificate.
    pub(super) asks_clients: Option<bool>,
}

impl Arguments {
    pub(super) fn read(args: &[String]) -> Self {
        let mut read = Self::default();
        for directive in directives(args) {
            let name = directive[0].to_ascii_lowercase();
            let Some(value) = directive.get(1) else { continue };
            match name.as_str() {
                "--port" => read.port = value.parse().ok(),
                "--tls-port" => read.tls_port = value.parse().ok(),
                "--requirepass" => read.password = Some(value.clone()),
                "--user" => read.users.push((value.clone(), directive[2..].to_vec())),
                "--aclfile" => read.acl_file = Some(value.into()).filter(|_| !value.is_empty()),
                "--tls-ca-cert-file" => read.ca = Some(value.into()),
                "--tls-cert-file" => read.certificate = Some(value.into()),
                "--tls-key-file" => read.key = Some(value.into()),
                "--tls-auth-clients" => read.asks_clients = Some(value.eq_ignore_ascii_case("yes")),
                _ => {}
            }
        }
        read
    }

    /// The files that the server reads.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.acl_file, &self.ca, &self.certificate, &self.key].into_iter().flatten()
    }
}

/// The directives with their values. An argument may hold a directive with its values (`"--port 7000"`); the argument
/// after a directive is its value, whatever it looks like.
fn directives(args: &[String]) -> Vec<Vec<String>> {
    let mut directives: Vec<Vec<String>> = Vec::new();
    let mut wants_value = false;
    for arg in args {
        match directives.last_mut() {
            Some(last) if wants_value || !arg.starts_with("--") => {
                last.push(arg.clone());
                wants_value = false;
            }
            _ => {
                let words: Vec<_> = arg.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect();
                wants_value = words.len() == 1;
                directives.extend(Some(words).filter(|words| !words.is_empty()));
            }
        }
    }
    directives
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Arguments {
        Arguments::read(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn directives_are_read_as_the_server_reads_them() {
        let args = read(&["--Port", "1", "--port 2", "--requirepass", "--pw", "--user", "app", "on", ">pw", "-debug"]);
        assert_eq!((args.port, args.password.as_deref()), (Some(2), Some("--pw")));
        let rules = ["on", ">pw", "-debug"].map(str::to_owned).to_vec();
        assert_eq!(args.users, [("app".to_owned(), rules)]);
        let args = read(&["--user app on >pw", "--tls-port", "3", "--tls-auth-clients", "optional", "--aclfile", ""]);
        assert_eq!((args.users.len(), args.tls_port, args.acl_file), (1, Some(3), None));
        assert_eq!(args.asks_clients, Some(false));
    }

    #[test]
    fn what_is_no_directive_is_no_panic() {
        assert_eq!(read(&["", "x", "--", "--port"]).port, None);
        assert_eq!(read(&["--port", "x", "--user"]).port, None);
    }
}
