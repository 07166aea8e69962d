//! What every name of a user keeps to.

use crate::error::{Error, ErrorKind};

/// The longest name, in bytes.
pub(crate) const MAX_NAME: usize = 512;

/// Refuses a name that is empty or too long, saying which.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Error> {
    match name.len() {
        0 => Err(Error::new(ErrorKind::InvalidName, format!("{what} is empty; a name has 1 to {MAX_NAME} bytes"))),
        1..=MAX_NAME => Ok(()),
        length => Err(Error::new(
            ErrorKind::InvalidName,
            format!("{what} has {length} bytes; a name has 1 to {MAX_NAME} bytes"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_1_to_512_bytes() {
        assert!(check_name("group", "").unwrap_err().to_string().contains("group is empty"));
        assert!(check_name("group", "a").is_ok());
        assert!(check_name("group", &"a".repeat(512)).is_ok());
        assert!(check_name("group", &"a".repeat(513)).unwrap_err().to_string().contains("513"));
    }
}
