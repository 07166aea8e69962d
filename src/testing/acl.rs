//! What the rules of a Redis user say of how to log in.

/// A Redis user, as far as its rules tell who may log in, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    is_on: bool,
    pub(super) may_all: bool,
    secret: Secret,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Secret {
    /// There is none, so nobody can log in.
    Missing,
    /// Any password will do.
    Any,
    Known(String),
    /// Only its hash is known.
    Hashed,
}

/// What a client sends to log in.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    /// `None`: the default user.
    pub(super) user: Option<String>,
    /// `None`: nothing is sent.
    pub(super) password: Option<String>,
}

impl User {
    /// The user of clients that do not log in, before any rule.
    pub(super) fn default_user() -> Self {
        Self { is_on: true, may_all: true, secret: Secret::Any, ..Self::new("default") }
    }

    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), is_on: false, may_all: false, secret: Secret::Missing }
    }

    pub(super) fn is_default(&self) -> bool {
        self.name == "default"
    }

    pub(super) fn is_open(&self) -> bool {
        self.secret == Secret::Any
    }

    /// Gives it a password that the caller knows.
    pub(super) fn set_password(&mut self, password: &str) {
        self.secret = Secret::Known(password.to_owned());
    }

    /// The user with these rules more, in order, as `ACL SETUSER` reads them.
    pub(super) fn with_rules<'a>(mut self, rules: impl IntoIterator<Item = &'a str>) -> Self {
        rules.into_iter().for_each(|rule| self.apply(rule));
        self
    }

    fn apply(&mut self, rule: &str) {
        let word = rule.to_ascii_lowercase();
        match word.as_str() {
            "on" => self.is_on = true,
            "off" => self.is_on = false,
            "nopass" => self.secret = Secret::Any,
            "resetpass" => self.secret = Secret::Missing,
            "reset" => *self = Self::new(&self.name),
            "allcommands" | "+@all" => self.may_all = true,
            "nocommands" => self.may_all = false,
            _ if word.starts_with('-') => self.may_all = false,
            _ if word.starts_with('>') => self.set_password(&rule[1..]),
            _ if word.starts_with('#') && !matches!(self.secret, Secret::Known(_)) => self.secret = Secret::Hashed,
            _ if self.secret == Secret::Known(rule.strip_prefix('<').unwrap_or_default().to_owned()) => {
                self.secret = Secret::Missing;
            }
            _ => {}
        }
    }

    /// How to log in as this user, where that is known.
    pub(super) fn login(&self) -> Option<Login> {
        let user = (!self.is_default()).then(|| self.name.clone());
        let password = match &self.secret {
            Secret::Known(password) => Some(password.clone()),
            Secret::Any if self.is_default() => None,
            Secret::Any => Some("any".to_owned()),
            Secret::Missing | Secret::Hashed => return None,
        };
        self.is_on.then_some(Login { user, password })
    }
}

/// The users of an ACL file, with the default user first.
pub(super) fn users_of_file(text: &str) -> Vec<User> {
    let mut users = vec![User::default_user()];
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some("user"), Some(name)) = (words.next(), words.next()) {
            define(&mut users, name, words);
        }
    }
    users
}

/// A user that is defined anew loses what it was.
pub(super) fn define<'a>(users: &mut Vec<User>, name: &str, rules: impl IntoIterator<Item = &'a str>) {
    let user = User::new(name).with_rules(rules);
    match users.iter_mut().find(|known| known.name == name) {
        Some(known) => *known = user,
        None => users.push(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(rules: &str) -> Option<Option<String>> {
        User::new("app").with_rules(rules.split_whitespace()).login().map(|login| login.password)
    }

    #[test]
    fn rules_tell_who_can_log_in() {
        let known = |password: &str| Some(Some(password.to_owned()));
        for (rules, expected) in [
            ("on >one ~* +@all", known("one")),
            ("ON >One", known("One")),
            ("on >one #abc", known("one")),
            ("on nopass", known("any")),
            ("on #abc +@all", None),
            ("on +@all", None),
            (">one", None),
            ("on >one off", None),
            ("on >one resetpass", None),
            ("on >one <one", None),
            ("on >one <other", known("one")),
            ("on >one reset", None),
        ] {
            assert_eq!(login(rules), expected, "{rules}");
        }
    }

    #[test]
    fn a_right_that_is_taken_away_leaves_less_than_all() {
        let may_all = |rules: &str| User::new("app").with_rules(rules.split_whitespace()).may_all;
        assert!(may_all("on +@all") && may_all("allcommands ~*"));
        assert!(!may_all("+@all -@dangerous") && !may_all("+ping") && !may_all("+@all nocommands"));
    }

    #[test]
    fn a_file_has_a_default_user_that_it_may_define() {
        let users = users_of_file("user app on >pw +@all\n\nuser other off\n");
        let names: Vec<_> = users.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(names, ["default", "app", "other"]);
        assert!(users[0].is_open() && users[0].may_all);
        assert!(users_of_file("user default off")[0].login().is_none());
    }
}
