//! Where the servers are: one, several of which one is the primary, or those that sentinels know. Read from a URL
//! before any I/O. The errors name the part that is wrong, and never a password.

use percent_encoding::percent_decode_str;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};

use crate::error::{Error, ErrorKind};

const SENTINEL_PORT: u16 = 26379;
/// The form of a URL, for errors.
const SERVER_FORM: &str = "redis://[user:password@]host[:port][,host[:port]..][/db]";
const SENTINEL_FORM: &str = "redis+sentinel://[user:password@]host[:port][,host[:port]..]/master[/db]";

#[derive(Clone)]
pub(crate) enum Servers {
    /// One of them is the primary. They differ by their addresses only.
    Listed(Vec<ConnectionInfo>),
    Sentinels(Box<Sentinels>),
}

/// Sentinels, and the primary that they know by this name.
#[derive(Clone)]
pub(crate) struct Sentinels {
    pub(crate) sentinels: Vec<ConnectionInfo>,
    pub(crate) master: String,
    /// How to connect to the primary: all but its address.
    pub(crate) primary: ConnectionInfo,
}

/// What stands between the scheme and the path of a URL, and the rest.
struct Parts<'a> {
    /// With its `@`.
    credentials: &'a str,
    hosts: Vec<&'a str>,
    path: &'a str,
    query: &'a str,
    /// With its `#`.
    fragment: &'a str,
}

impl Servers {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        let is_tls = ["rediss", "rediss+cluster", "rediss+sentinel", "valkeys"].contains(&scheme);
        if is_tls && !cfg!(feature = "tls") {
            return Err(refused(format!("{scheme}:// needs the feature \"tls\" of group-redis")));
        }
        Parts::of(rest).check_credentials()?;
        match scheme {
            "redis+cluster" => Self::listed("redis", rest),
            "rediss+cluster" => Self::listed("rediss", rest),
            "redis+sentinel" => Sentinels::parse("redis", rest).map(|of| Self::Sentinels(Box::new(of))),
            "rediss+sentinel" => Sentinels::parse("rediss", rest).map(|of| Self::Sentinels(Box::new(of))),
            "redis" | "rediss" | "valkey" | "valkeys" if Parts::of(rest).hosts.len() > 1 => Self::listed(scheme, rest),
            _ => Ok(Self::Listed(vec![info(url, SERVER_FORM)?])),
        }
    }

    fn listed(scheme: &str, rest: &str) -> Result<Self, Error> {
        let parts = Parts::of(rest);
        parts.check_hosts(SERVER_FORM)?;
        let Parts { credentials, path, query, fragment, .. } = parts;
        let url = |host: &&str| format!("{scheme}://{credentials}{host}{path}{query}{fragment}");
        let infos: Result<_, _> = parts.hosts.iter().map(|host| info(&url(host), SERVER_FORM)).collect();
        infos.map(Self::Listed)
    }

    /// How to connect to the primary: all but its address.
    pub(crate) fn primary(&self) -> &ConnectionInfo {
        match self {
            Self::Listed(servers) => &servers[0],
            Self::Sentinels(sentinels) => &sentinels.primary,
        }
    }

    /// Whether TLS goes to all of them: the sentinels may be without it only where they say so by URLs of their own.
    pub(crate) fn are_by_tls(&self) -> bool {
        matches!(self.primary().addr(), ConnectionAddr::TcpTls { .. })
    }

    /// Changes all that is the same for all servers.
    pub(crate) fn with(self, change: impl Fn(ConnectionInfo) -> ConnectionInfo) -> Self {
        match self {
            Self::Listed(servers) => Self::Listed(servers.into_iter().map(change).collect()),
            Self::Sentinels(of) => Self::Sentinels(Box::new(Sentinels {
                sentinels: of.sentinels.into_iter().map(&change).collect(),
                master: of.master,
                primary: change(of.primary),
            })),
        }
    }
}

impl Sentinels {
    fn parse(scheme: &str, rest: &str) -> Result<Self, Error> {
        let parts = Parts::of(rest);
        parts.check_hosts(SENTINEL_FORM)?;
        let mut path = parts.path.trim_matches('/').splitn(2, '/');
        let (master, db) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
        let master = percent_decode_str(master).decode_utf8();
        let master = master.map_err(|_| refused("the name of the master in the URL is not valid UTF-8".to_owned()))?;
        if master.is_empty() {
            return Err(refused(format!("the URL names no master: {SENTINEL_FORM}")));
        }
        let Parts { credentials, fragment, .. } = parts;
        let primary = info(&format!("{scheme}://{credentials}primary/{db}{fragment}"), SENTINEL_FORM)?;
        let (user, password) = (parts.queried("sentinel_user")?, parts.queried("sentinel_password")?);
        let mut sentinels = Vec::new();
        for host in &parts.hosts {
            let sentinel = info(&format!("{scheme}://{}{fragment}", with_port(host)), SENTINEL_FORM)?;
            let mut settings = sentinel.redis_settings().clone();
            if let Some(user) = &user {
                settings = settings.set_username(user);
            }
            if let Some(password) = &password {
                settings = settings.set_password(password);
            }
            sentinels.push(sentinel.set_redis_settings(settings));
        }
        Ok(Self { sentinels, master: master.into_owned(), primary })
    }

    /// Sentinels by URLs of their own, with what is known of how to connect to the primary.
    pub(crate) fn new(master: String, urls: &[String], primary: ConnectionInfo) -> Result<Self, Error> {
        if master.is_empty() {
            return Err(refused("the master that the sentinels know has no name".to_owned()));
        }
        if urls.is_empty() {
            return Err(refused(format!("no sentinel of {master:?} is named")));
        }
        let mut sentinels = Vec::new();
        for url in urls {
            let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
            let parts = Parts::of(rest);
            parts.check_credentials()?;
            let (&[host], Parts { credentials, path, query, fragment, .. }) = (&*parts.hosts, &parts) else {
                return Err(refused("give each sentinel by itself: host[:port], or a URL with one host".to_owned()));
            };
            let url = format!("{scheme}://{credentials}{}{path}{query}{fragment}", with_port(host));
            sentinels.push(info(&url, "redis://[user:password@]host[:port], or host[:port]")?);
        }
        Ok(Self { sentinels, master, primary })
    }
}

/// The same server settings with this address.
pub(crate) fn addressed(info: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    };
    info.clone().set_addr(address)
}

/// The same host with this port.
pub(crate) fn on_port(info: &ConnectionInfo, port: u16) -> ConnectionInfo {
    match info.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => addressed(info, host, port),
        _ => info.clone(),
    }
}

impl<'a> Parts<'a> {
    fn of(rest: &'a str) -> Self {
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (rest, fragment) = rest.split_at(rest.find('#').unwrap_or(rest.len()));
        let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
        let (credentials, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        Self { credentials, hosts: hosts.split(',').collect(), path, query, fragment }
    }

    fn check_hosts(&self, form: &str) -> Result<(), Error> {
        match self.hosts.iter().position(|host| host.is_empty()) {
            Some(place) => Err(refused(format!("host {} of the URL is empty: {form}", place + 1))),
            None => Ok(()),
        }
    }

    /// One user and password are for all hosts: those before each would be taken for a part of the first password.
    fn check_credentials(&self) -> Result<(), Error> {
        if self.credentials.matches('@').count() > 1 && self.credentials.contains(',') {
            let message = "give the URL one user and password, before the first host, and percent-encode `@` in them";
            return Err(refused(message.to_owned()));
        }
        Ok(())
    }

    fn queried(&self, name: &str) -> Result<Option<String>, Error> {
        let mut pairs = self.query.trim_start_matches('?').split('&').filter_map(|pair| pair.split_once('='));
        let Some((_, value)) = pairs.find(|(key, _)| *key == name) else { return Ok(None) };
        let decoded = percent_decode_str(value).decode_utf8();
        decoded
            .map(|value| Some(value.into_owned()))
            .map_err(|_| refused(format!("{name} in the URL is not valid UTF-8")))
    }
}

/// The host with its port: an IPv6 address has colons of its own, within brackets.
fn with_port(host: &str) -> String {
    let after = host.rfind(']').map_or(0, |end| end + 1);
    if host[after..].contains(':') { host.to_owned() } else { format!("{host}:{SENTINEL_PORT}") }
}

fn info(url: &str, form: &str) -> Result<ConnectionInfo, Error> {
    // Nothing of the URL is in the message, nor is what redis says of it its source: it may hold a password.
    let told = |error: RedisError| {
        let said = error.to_string();
        let why = error.detail().map_or_else(|| said.clone(), |detail| said.replace(detail, ".."));
        refused(format!("the URL is not one of a Redis server, {form}: {why}"))
    };
    url.into_connection_info().map_err(told)
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(infos: &[ConnectionInfo]) -> Vec<String> {
        infos.iter().map(|info| info.addr().to_string()).collect()
    }

    fn sentinels(url: &str) -> Sentinels {
        match Servers::parse(url) {
            Ok(Servers::Sentinels(sentinels)) => *sentinels,
            Ok(Servers::Listed(_)) => panic!("{url} has no sentinels"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn hosts_of_a_url_share_the_rest() {
        let Ok(Servers::Listed(servers)) = Servers::parse("redis://u:p%40@a,b:7000,[::1]:7001/3") else { panic!() };
        assert_eq!(addresses(&servers), ["a:6379", "b:7000", "::1:7001"]);
        for server in &servers {
            let settings = server.redis_settings();
            assert_eq!((settings.username(), settings.password(), settings.db()), (Some("u"), Some("p@"), 3));
        }
    }

    #[test]
    fn sentinels_have_credentials_of_their_own() {
        let url = "redis+sentinel://u:p@h1,h2:5000/my%2Fmaster/2?sentinel_user=s&sentinel_password=t%40";
        let Sentinels { sentinels, master, primary } = sentinels(url);
        assert_eq!((addresses(&sentinels), &*master), (vec!["h1:26379".into(), "h2:5000".into()], "my/master"));
        let settings = primary.redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("u"), Some("p"), 2));
        let settings = sentinels[0].redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("s"), Some("t@"), 0));
    }

    #[test]
    fn a_sentinel_by_itself_has_a_default_port() {
        let primary = || info("redis://primary/", SERVER_FORM).unwrap();
        let new = |url: &str| Sentinels::new("m".into(), &[url.into()], primary());
        for (url, address) in [
            ("h", "h:26379"),
            ("h:1", "h:1"),
            ("u:p@h", "h:26379"),
            ("redis://:p@h", "h:26379"),
            ("redis://:p@h:1/", "h:1"),
            ("[::1]", "::1:26379"),
        ] {
            let Ok(sentinels) = new(url) else { panic!("{url}") };
            assert_eq!(addresses(&sentinels.sentinels), [address], "{url}");
        }
        assert!(new("a,b").is_err() && new("").is_err());
        let odd = "redis+sentinel://h/m?sentinel_user=s&sentinel_password=1?x/y";
        assert_eq!(sentinels(odd).sentinels[0].redis_settings().password(), Some("1?x/y"));
    }

    #[test]
    fn sentinels_without_credentials_get_none() {
        let Sentinels { sentinels, primary, .. } = sentinels("redis+sentinel://:p@[::1],h2/m");
        assert_eq!(addresses(&sentinels), ["::1:26379", "h2:26379"]);
        assert_eq!(sentinels[0].redis_settings().password(), None);
        assert_eq!((primary.redis_settings().password(), primary.redis_settings().db()), (Some("p"), 0));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn an_address_keeps_its_tls() {
        let Sentinels { sentinels, primary, .. } = sentinels("rediss+sentinel://h/m#insecure");
        for info in [&sentinels[0], &primary, &addressed(&primary, "h3", 1)] {
            assert!(matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }), "{}", info.addr());
        }
    }

    #[test]
    fn a_wrong_part_is_named_and_no_password_is() {
        for (url, part) in [
            ("redis://:secret@a,,b/", "host 2"),
            ("redis://:secret@a,b:port/", "not one of a Redis server"),
            ("redis://:secret@a,b/x", "database number"),
            ("redis+sentinel://:secret@/m", "host 1"),
            ("redis+sentinel://:secret@a", "no master"),
            ("redis+sentinel://:secret@a/", "no master"),
            ("redis+sentinel://:secret@a/%FF", "UTF-8"),
            ("redis+sentinel://:secret@a/m/x", "database number"),
            ("redis+sentinel://a:port/m?sentinel_password=secret", "not one of a Redis server"),
            ("redis://u:secret@a,u:secret@b/", "one user and password"),
            ("redis+sentinel://u:secret@a,u:secret@b/m", "one user and password"),
            ("rediss:/app:secret@a", "not one of a Redis server"),
            ("rediss:app:secret@a", "not one of a Redis server"),
            ("http://:secret@a/", "not one of a Redis server"),
        ] {
            let Err(error) = Servers::parse(url) else { panic!("{url}") };
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(part), "{url}: {error}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
