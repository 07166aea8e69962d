//! Each script about data by itself, as a program in another language would call it.

use crate::scripts::{Caller, words};
use crate::support::Fixture;

const LONG: &str = "40000";

impl Caller {
    async fn lease(&mut self, session: &str) {
        self.ask::<()>("SET", &format!("leases/{session}"), &["{\"pid\":1}", "PX", LONG]).await;
    }

    async fn value_set(&mut self, session: &str, nonce: &str, own: &str, contest: &str, bytes: &str) -> Vec<String> {
        let (lease, owned) = (format!("leases/{session}"), format!("owned/{session}"));
        let keys = ["ephemerals/a", &lease, &owned, "ephemerals", "leases"];
        let prefix = self.prefix.clone();
        words(self.run("value_set", &keys, &[&prefix, "a", session, nonce, own, LONG, contest, bytes]).await)
    }

    async fn value_delete(&mut self, session: &str) -> String {
        let owned = format!("owned/{session}");
        let keys = ["ephemerals/a", &owned, "ephemerals", "leases"];
        words(self.run("value_delete", &keys, &["a", session]).await).remove(0)
    }

    async fn value_read(&mut self, pairs: &[&str]) -> Vec<String> {
        let prefix = self.prefix.clone();
        words(self.run("value_read", &["leases"], &[&[prefix.as_str(), "1000"], pairs].concat()).await).split_off(1)
    }

    async fn value_list(&mut self, begins: &str, count: &str, highest: &str, after: &str, chunk: &str) -> Vec<String> {
        words(self.run("value_list", &["persistent", "leases"], &[begins, count, highest, after, chunk]).await)
    }
}

/// A value of a living owner is not taken over, unless that is asked for.
#[tokio::test]
async fn value_set_is_once_per_nonce() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    assert_eq!(caller.value_set("s-1", "1", "0", "yield", "x").await, ["lost"], "no lease");
    for session in ["s-1", "t-1"] {
        caller.lease(session).await;
    }
    let first = caller.value_set("s-1", "1", "0", "yield", "x").await;
    assert_eq!(first[0], "stored");
    assert_eq!(caller.value_set("s-1", "1", "0", "yield", "y").await, first, "a lost reply is not a second set");
    let value: String = caller.ask("GET", "ephemerals/a", &[]).await;
    let head = format!("{{\"v\":1,\"session\":\"s-1\",\"nonce\":1,\"revision\":{},\"until\":0}}\nx", first[1]);
    assert_eq!(value, head);
    assert_eq!(caller.ask::<String>("ZSCORE", "ephemerals", &["a"]).await, first[1], "no digit is lost");
    assert_eq!(caller.value_set("t-1", "1", "0", "yield", "z").await, ["conflict", "{\"pid\":1}"]);

    let taken = caller.value_set("t-1", "2", "5000", "take", "z").await;
    assert!(taken[1] > first[1]);
    assert!(!caller.ask::<bool>("SISMEMBER", "owned/s-1", &["ephemerals/a"]).await);
    assert!(caller.ask::<bool>("SISMEMBER", "owned/t-1", &["ephemerals/a"]).await);
    assert!(caller.ask::<u64>("PTTL", "ephemerals/a", &[]).await <= 5000, "its own expiry");
    assert!(caller.ask::<Option<u64>>("ZSCORE", "leases", &["=a"]).await.is_some(), "the sweep will look at it");
    caller.value_set("t-1", "3", "0", "yield", "z").await;
    assert!(caller.ask::<Option<u64>>("ZSCORE", "leases", &["=a"]).await.is_none());
    caller.ask::<()>("DEL", "leases/t-1", &[]).await;
    assert_eq!(caller.value_set("s-1", "4", "0", "yield", "x").await[0], "stored", "its owner is dead");
}

#[tokio::test]
async fn value_delete_takes_only_the_callers() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    caller.lease("s-1").await;
    assert_eq!(caller.value_delete("s-1").await, "0");
    caller.value_set("s-1", "1", "5000", "yield", "x").await;
    assert_eq!(caller.value_delete("t-1").await, "0");
    assert_eq!(caller.value_delete("s-1").await, "1");
    for left in ["ephemerals/a", "ephemerals", "owned/s-1", "leases"] {
        assert!(!caller.ask::<bool>("EXISTS", left, &[]).await, "{left} is left");
    }
}

#[tokio::test]
async fn value_read_says_why_nothing_is_there() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    caller.lease("s-1").await;
    caller.value_set("s-1", "1", "0", "yield", "x").await;
    let found = caller.value_read(&["ephemerals/a", ""]).await;
    assert!(found[0] == "value" && found[1].ends_with("\nx"), "{found:?}");
    assert_eq!(caller.value_read(&["ephemerals/b", "", "ephemerals/b", "s-1"]).await, ["deleted", "deleted"]);
    assert_eq!(caller.value_read(&["ephemerals/b", "gone-1"]).await, ["expired"]);
    caller.ask::<()>("SET", "leases/s-1", &["closed"]).await;
    assert_eq!(caller.value_read(&["ephemerals/a", ""]).await, ["deleted"], "its owner has closed");
    caller.ask::<()>("DEL", "leases/s-1", &[]).await;
    assert_eq!(caller.value_read(&["ephemerals/a", ""]).await, ["expired"]);
    caller.ask::<()>("SET", "ephemerals/b", &["text"]).await;
    caller.ask::<()>("RPUSH", "ephemerals/c", &["x"]).await;
    assert_eq!(caller.value_read(&["ephemerals/b", "", "ephemerals/c", ""]).await, ["foreign", "foreign"]);
    let record = "{\"v\":1,\"token\":9,\"session\":\"gone-1\",\"nonce\":1,\"since\":5,\"member\":\"m\"}";
    caller.ask::<()>("SET", "locks/x", &[record]).await;
    assert_eq!(
        caller.value_read(&["locks/x", ""]).await,
        ["value", record],
        "a lock is its holder's until it is handed on"
    );
    let long = "x".repeat(900);
    caller.ask::<()>("SET", "locks/y", &[&long]).await;
    assert_eq!(caller.value_read(&["locks/y", "", "locks/y", "", "locks/x", ""]).await, ["foreign", "later", "later"]);
}

/// A listing brings them part by part.
#[tokio::test]
async fn persistent_set_is_all_or_none() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let prefix = caller.prefix.clone();
    let revisions =
        words(caller.run("persistent_set", &["persistent"], &[&prefix, "a/1", "x", "b", "y", "a/2", "z"]).await);
    assert!(revisions.is_sorted_by(|a, b| a < b));
    assert_eq!(caller.ask::<String>("GET", "persistent/a/2", &[]).await, "z");
    let all = caller.value_list("", "", "", "-inf", "10").await;
    assert_eq!(all[0], "part");
    assert_eq!(all[2..], ["3", &revisions[2], "", "a/1", &revisions[0], "b", &revisions[1], "a/2", &revisions[2]]);
    let part = caller.value_list("a/", "", "", "-inf", "2").await;
    assert_eq!(part[4..], [&revisions[1], "a/1", &revisions[0]], "what does not begin so is passed over");
    let rest = caller.value_list("a/", "", "", &format!("({}", revisions[1]), "2").await;
    assert_eq!(rest[4..], ["", "a/2", &revisions[2]]);
    assert_eq!(caller.value_list("", "3", &revisions[2], "-inf", "10").await, ["same", "-1"]);
    assert_eq!(caller.value_list("", "2", &revisions[2], "-inf", "10").await[0], "part");

    caller.ask::<()>("DEL", "persistent", &[]).await;
    caller.ask::<()>("RPUSH", "persistent", &["x"]).await;
    assert!(caller.try_run("persistent_set", &["persistent"], &[&prefix, "c", "x"]).await.is_err());
    assert!(!caller.ask::<bool>("EXISTS", "persistent/c", &[]).await, "nothing was written");
}

#[tokio::test]
async fn exchange_wants_the_present_revision() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let keys = ["persistent/a", "persistent", "revision"];
    let exchange = async |caller: &mut Caller, expected: &str, bytes: &str| {
        words(caller.run("persistent_exchange", &keys, &["a", expected, bytes]).await).remove(0)
    };
    assert_eq!(exchange(&mut caller, "5", "x").await, "0");
    let first = exchange(&mut caller, "", "x").await;
    assert_eq!(exchange(&mut caller, "", "y").await, "0");
    let second = exchange(&mut caller, &first, "y").await;
    assert!(second > first);
    assert_eq!(exchange(&mut caller, &first, "z").await, "0");
    assert_eq!(caller.ask::<String>("GET", "persistent/a", &[]).await, "y");
    // Deleted by another program: its revision is that of nothing.
    caller.ask::<()>("DEL", "persistent/a", &[]).await;
    assert_eq!(exchange(&mut caller, &second, "z").await, "0");
    assert_ne!(exchange(&mut caller, "", "z").await, "0");
}

/// A deletion takes both, value and revision.
#[tokio::test]
async fn persistent_get_brings_value_and_revision() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let (prefix, keys) = (caller.prefix.clone(), ["persistent/a", "persistent"]);
    let recall = async |caller: &mut Caller| words(caller.run("persistent_get", &keys, &["a"]).await);
    let remove = async |caller: &mut Caller| words(caller.run("persistent_delete", &keys, &["a"]).await);
    assert!(recall(&mut caller).await.is_empty());
    assert_eq!(remove(&mut caller).await, ["0"]);

    let revision = words(caller.run("persistent_set", &["persistent"], &[&prefix, "a", "x"]).await).remove(0);
    assert_eq!(recall(&mut caller).await, ["x", &revision], "no digit is lost");
    assert_eq!(remove(&mut caller).await, ["1"]);
    assert!(recall(&mut caller).await.is_empty());
    assert!(!caller.ask::<bool>("EXISTS", "persistent", &[]).await, "nothing remains in the index");

    caller.ask::<()>("SET", "persistent/a", &["by another program"]).await;
    assert_eq!(recall(&mut caller).await, ["by another program", "0"]);
    assert_eq!(remove(&mut caller).await, ["1"]);
    caller.ask::<()>("RPUSH", "persistent/a", &["x"]).await;
    assert!(caller.try_run("persistent_get", &keys, &["a"]).await.is_err());
}
