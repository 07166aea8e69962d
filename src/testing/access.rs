//! Whom a server lets in, and how its test gets in.

use std::path::Path;

use super::TestRedisError;
use super::acl::{self, Login, User};
use super::arguments::Arguments;

/// A user that the builder was asked for.
#[derive(Clone)]
pub(super) struct NewUser {
    pub(super) name: String,
    pub(super) password: String,
    /// `None`: all rights.
    pub(super) rules: Option<Vec<String>>,
}

const ALL_RIGHTS: [&str; 3] = ["~*", "&*", "+@all"];

impl NewUser {
    fn rules(&self) -> Vec<String> {
        let login = ["on".to_owned(), format!(">{}", self.password)];
        let rights = self.rules.clone().unwrap_or_else(|| ALL_RIGHTS.map(str::to_owned).to_vec());
        login.into_iter().chain(rights).collect()
    }
}

/// The logins of a server.
pub(super) struct Access {
    /// How the test server itself logs in, to ask and to shut down.
    pub(super) own: Login,
    /// The login that the URL shows.
    pub(super) shown: Login,
    /// All others that are known.
    pub(super) logins: Vec<Login>,
    /// What makes the server be so.
    pub(super) args: Vec<String>,
}

impl Access {
    /// What the builder and the raw arguments, which come last and so overrule it, make together.
    pub(super) fn new(
        password: Option<&str>,
        new_users: &[NewUser],
        arguments: &Arguments,
    ) -> Result<Self, TestRedisError> {
        if password == Some("") || new_users.iter().any(|user| user.password.is_empty()) {
            return Err(TestRedisError::unsuitable("an empty password is none; give it at least one character"));
        }
        let (users, args) = match &arguments.acl_file {
            Some(file) => (users_of_file(file, password, new_users)?, Vec::new()),
            None => users_of_arguments(password, new_users, arguments),
        };
        let logins: Vec<_> = users.iter().filter_map(User::login).collect();
        let all = users.iter().filter(|user| user.may_all).find_map(User::login);
        let own = all.or_else(|| logins.first().cloned()).ok_or_else(|| {
            TestRedisError::unsuitable(
                "no user can log in whose password is known; give one by `.password(..)` or `.user(..)`, or in clear \
                 (`>password`) in the arguments or the ACL file",
            )
        })?;
        let first = new_users.first();
        let shown = first.and_then(|first| users.iter().find(|user| user.name == first.name)?.login());
        Ok(Self { shown: shown.unwrap_or_else(|| own.clone()), own, logins, args })
    }
}

/// Without an ACL file: the users of the builder and of the arguments.
fn users_of_arguments(
    password: Option<&str>,
    new_users: &[NewUser],
    arguments: &Arguments,
) -> (Vec<User>, Vec<String>) {
    // Who asks for a user wants no server that is open to everybody.
    let closing = (!new_users.is_empty()).then(|| uuid::Uuid::new_v4().simple().to_string());
    let required = password.map(str::to_owned).or(closing);
    let mut args = Vec::new();
    args.extend(required.iter().flat_map(|password| ["--requirepass".to_owned(), password.clone()]));
    let mut users = vec![User::default_user()];
    if let Some(password) = arguments.password.as_ref().or(required.as_ref()).filter(|password| !password.is_empty()) {
        users[0].set_password(password);
    }
    for user in new_users {
        let rules = user.rules();
        acl::define(&mut users, &user.name, rules.iter().map(String::as_str));
        args.extend(["--user".to_owned(), user.name.clone()].into_iter().chain(rules));
    }
    for (name, rules) in &arguments.users {
        acl::define(&mut users, name, rules.iter().map(String::as_str));
    }
    (users, args)
}

/// With an ACL file, its users are all there are: the builder can only tell passwords of which it holds the hash.
fn users_of_file(file: &Path, password: Option<&str>, new_users: &[NewUser]) -> Result<Vec<User>, TestRedisError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let cure = "give an absolute path that this test can read";
        TestRedisError::unsuitable(format!("the ACL file {} cannot be read: {error}; {cure}", file.display()))
    })?;
    let mut users = acl::users_of_file(&text);
    if let Some(password) = password {
        if users[0].is_open() {
            return Err(TestRedisError::unsuitable(
                "with an ACL file, `.password(..)` sets none; write `user default on >password ~* &* +@all` into it",
            ));
        }
        users[0].set_password(password);
    }
    for new in new_users {
        let known = users.iter_mut().find(|user| user.name == new.name).filter(|_| new.rules.is_none());
        let known = known.ok_or_else(|| {
            let cure = "write user and rules into it";
            TestRedisError::unsuitable(format!("with an ACL file, no user {:?} can be added; {cure}", new.name))
        })?;
        known.set_password(&new.password);
    }
    Ok(users)
}
