//! Faults built in on purpose, so that the tests can be seen to fail. They are there only in a build with
//! `--cfg group_redis_mutants`, where `GROUP_REDIS_MUTANT` names the one that is on; see `docs/TESTING.md`.

use std::borrow::Cow;

#[cfg(group_redis_mutants)]
static CHOSEN: std::sync::LazyLock<Option<String>> =
    std::sync::LazyLock::new(|| std::env::var("GROUP_REDIS_MUTANT").ok());

/// Whether this mutant is on.
#[cfg(group_redis_mutants)]
pub(crate) fn is(name: &str) -> bool {
    CHOSEN.as_deref() == Some(name)
}

/// Never, in what users build.
#[cfg(not(group_redis_mutants))]
pub(crate) const fn is(_: &str) -> bool {
    false
}

/// Whether this mutant is on, and was asked for before: what is right once, and wrong from then on.
#[cfg(group_redis_mutants)]
pub(crate) fn is_again(name: &str) -> bool {
    static ASKED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    is(name) && ASKED.swap(true, std::sync::atomic::Ordering::Relaxed)
}

/// Never, in what users build.
#[cfg(not(group_redis_mutants))]
pub(crate) const fn is_again(_: &str) -> bool {
    false
}

/// What is replaced in the scripts, by what, if this mutant is on.
#[cfg(group_redis_mutants)]
const IN_SCRIPTS: [(&str, &str, &str); 6] = [
    ("blind_release", " and string.find(records[i], holder, 1, true)", ""),
    (
        "heartbeat_sets",
        "if not lease or lease == 'closed' then\n  return 0\nend\nredis.call('PEXPIRE', KEYS[1], ARGV[2])",
        "redis.call('SET', KEYS[1], lease or 'alive', 'PX', ARGV[2])",
    ),
    ("tokens_only_count", "math.max(tonumber(revision) + 1, time[1] * 1000000 + time[2])", "tonumber(revision) + 1"),
    ("tokens_only_count", "math.max(revision + 1, time[1] * 1000000 + time[2])", "revision + 1"),
    ("mark_of_any_run", "return mark == run", "return true"),
    ("dead_waiter_not_skipped", "not session or not is_alive(prefix, session)", "not session"),
];

/// A script as it is with the mutant that is on.
#[cfg(group_redis_mutants)]
pub(crate) fn script(text: &str) -> Cow<'_, str> {
    let on = IN_SCRIPTS.iter().filter(|(name, ..)| is(name));
    on.fold(text.into(), |text, (_, from, to)| text.replace(from, to).into())
}

/// A script as it is.
#[cfg(not(group_redis_mutants))]
pub(crate) const fn script(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}
