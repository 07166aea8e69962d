//! The value of a lease: which process holds it.

use serde::Deserialize;

/// The holder of this lease, in words.
pub(crate) fn holder(lease: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Holder {
        host: String,
        pid: u64,
    }
    match serde_json::from_slice::<Holder>(lease) {
        Ok(Holder { host, pid }) => format!("process {pid} on host {host:?}"),
        Err(_) => "another program".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_said_in_words() {
        let lease = br#"{"host":"web-1","pid":42,"grace":250,"since":1700000000000}"#;
        assert_eq!(holder(lease), "process 42 on host \"web-1\"");
        assert_eq!(holder(b"another program"), "another program");
        assert_eq!(holder(b"\xff"), "another program");
    }
}
