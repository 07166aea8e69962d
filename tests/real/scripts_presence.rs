//! The scripts of presence, each by itself.

use crate::scripts::Caller;
use crate::support::{Fixture, eventually};

fn words(value: redis::Value) -> Vec<String> {
    redis::from_redis_value(value).unwrap()
}

#[tokio::test]
async fn probers_gives_places_and_names_sessions() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let ask = async |caller: &mut Caller, connector: &str, ms: &str| {
        let prefix = caller.prefix.clone();
        let args = [&prefix, connector, ms, "2", "3"];
        words(caller.run("presence_probers", &["leases", "probers", "asks"], &args).await)
    };
    assert_eq!(ask(&mut caller, "a", "60000").await, ["0", "1"]);
    assert!(!caller.ask::<bool>("EXISTS", "probers", &[]).await, "nobody needs a place where there is nobody");
    assert!((1..=1000).contains(&caller.ask::<i64>("PTTL", "asks", &[]).await));

    caller.ask::<()>("ZADD", "leases", &["5", "s-1", "6", "~foreign", "7", "s-2", "8", "s-3"]).await;
    assert_eq!(ask(&mut caller, "a", "50").await, ["1", "s-1", "s-2"], "the first three of the index");
    assert_eq!(ask(&mut caller, "b", "60000").await[0], "1");
    assert_eq!(ask(&mut caller, "b", "60000").await[0], "1", "it is held already");
    eventually("the place of a is free", async || ask(&mut caller, "c", "60000").await[0] == "1").await;
    caller.ask::<()>("SET", "asks", &["41", "PX", "60000"]).await;
    assert_eq!(ask(&mut caller, "a", "60000").await, ["0", "42"]);
    assert!(caller.ask::<i64>("PTTL", "probers", &[]).await > 0);
}

#[tokio::test]
async fn place_of_a_prober_without_its_inbox_is_free() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let ask = async |caller: &mut Caller, connector: &str| {
        let prefix = caller.prefix.clone();
        let args = [&prefix, connector, "60000", "2", "3"];
        words(caller.run("presence_probers", &["leases", "probers", "asks"], &args).await)
    };
    caller.ask::<()>("ZADD", "leases", &["5", "s-1"]).await;
    let mut inboxes = Vec::new();
    for connector in ["a", "b"] {
        let mut inbox = redis::Client::open(fixture.redis.url()).unwrap().get_async_pubsub().await.unwrap();
        inbox.subscribe(fixture.key(&format!("inbox/{connector}"))).await.unwrap();
        inboxes.push(inbox);
        assert_eq!(ask(&mut caller, connector).await, ["1", "s-1"]);
    }
    assert_eq!(ask(&mut caller, "c").await, ["0", "3", "a", "b"], "these have the places");
    drop(inboxes.pop());
    eventually("the place of b is free", async || ask(&mut caller, "c").await[0] == "1").await;
    let (mut places, refused) =
        (caller.ask::<Vec<String>>("ZRANGE", "probers", &["0", "-1"]).await, ask(&mut caller, "b").await);
    places.sort();
    assert_eq!(places, ["a", "~c"], "c has no inbox and keeps its place all the same");
    assert_eq!((&*refused[0], &refused[2..]), ("0", &["a".to_owned()][..]));
}

#[tokio::test]
async fn mark_is_for_this_run_of_the_server() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let mark = async |caller: &mut Caller, session: &str| {
        crate::scripts::words(caller.run("presence_mark", &[&format!("leases/{session}")], &[]).await).remove(0)
    };
    assert_eq!(mark(&mut caller, "never").await, "0");
    assert!(!caller.ask::<bool>("EXISTS", "leases/never", &[]).await);
    caller.ask::<()>("SET", "leases/over", &["closed", "PX", "60000"]).await;
    assert_eq!(mark(&mut caller, "over").await, "0");
    assert_eq!(caller.ask::<String>("GET", "leases/over", &[]).await, "closed");
    let info: redis::InfoDict = redis::cmd("INFO").query_async(&mut fixture.connection().await).await.unwrap();
    let run: String = info.get("run_id").unwrap();
    let marked = format!(r#"{{"host":"h","grace":4000,"since":1,"run":"{run}"}}"#);
    caller.ask::<()>("SET", "leases/s", &[r#"{"host":"h","grace":4000,"since":1}"#, "PX", "60000"]).await;
    for _ in 0..2 {
        assert_eq!(mark(&mut caller, "s").await, "1");
        assert_eq!(caller.ask::<String>("GET", "leases/s", &[]).await, marked);
    }
    let earlier = marked.replace(&run, "00ff");
    caller.ask::<()>("SET", "leases/s", &[&earlier, "PX", "60000"]).await;
    caller.ask::<()>("SET", "leases/t", &[&marked, "PX", "60000"]).await;
    assert_eq!(mark(&mut caller, "s").await, "1");
    assert_eq!(caller.ask::<String>("GET", "leases/s", &[]).await, marked, "the mark of an earlier run is replaced");
    assert!((50_000..=60_000).contains(&caller.ask::<i64>("PTTL", "leases/s", &[]).await));

    caller.ask::<()>("SET", "leases/s", &[&earlier, "PX", "60000"]).await;
    caller.ask::<()>("SET", "leases/u", &[r#"{"host":"h","grace":4000,"since":1}"#, "PX", "60000"]).await;
    let prefix = caller.prefix.clone();
    let args = [prefix.as_str(), "s", "", "t", "", "u", ""];
    assert_eq!(words(caller.run("presence_shorten", &["leases"], &args).await)[1], "1");
    assert!(caller.ask::<i64>("PTTL", "leases/s", &[]).await > 50_000, "marked by an earlier run");
    assert!((3000..=3600).contains(&caller.ask::<i64>("PTTL", "leases/t", &[]).await), "nine tenths of its grace");
    assert!(caller.ask::<i64>("PTTL", "leases/u", &[]).await > 50_000, "not marked");
}

#[tokio::test]
async fn shorten_spares_the_present_and_the_closed() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let mut listening = redis::Client::open(fixture.redis.url()).unwrap().get_async_pubsub().await.unwrap();
    listening.subscribe(fixture.key("presence/there")).await.unwrap();
    let lease = r#"{"host":"h","grace":4000,"since":1}"#;
    for (session, value, ms) in [
        ("there", lease, "60000"),
        ("gone", lease, "60000"),
        ("long", lease, "60000"),
        ("short", lease, "100"),
        ("over", "closed", "5000"),
        ("apart", r#"{"host":"h","since":1}"#, "60000"),
    ] {
        caller.ask::<()>("SET", &format!("leases/{session}"), &[value, "PX", ms]).await;
    }
    caller
        .ask::<()>("ZADD", "leases", &["99999999999999", "there", "99999999999999", "gone", "99999999999999", "long"])
        .await;
    let prefix = caller.prefix.clone();
    let pairs =
        ["there", "20", "gone", "20", "long", "9000", "short", "20", "over", "20", "never", "20", "apart", "20"];
    let answer = words(caller.run("presence_shorten", &["leases"], &[&[prefix.as_str()], &pairs[..]].concat()).await);
    assert_eq!(answer[1], "2");
    let due: i64 = answer[0].parse().unwrap();
    assert!((3000..=3600).contains(&due), "{due}");
    assert!(caller.ask::<i64>("PTTL", "leases/there", &[]).await > 50_000);
    let deadline = async |caller: &mut Caller, session: &str| -> f64 {
        caller.ask::<String>("ZSCORE", "leases", &[session]).await.parse().unwrap()
    };
    let (gone, long) = (deadline(&mut caller, "gone").await, deadline(&mut caller, "long").await);
    assert!(
        (gone - long - 380.0).abs() < 50.0,
        "3980 ms are left to one and 3600, the least, to the other: {gone} {long}"
    );
    assert!(caller.ask::<i64>("PTTL", "leases/gone", &[]).await <= 3980);
    assert!(caller.ask::<i64>("PTTL", "leases/long", &[]).await <= 3600);
    assert!(caller.ask::<i64>("PTTL", "leases/apart", &[]).await > 50_000, "its holder does without presence");
    assert!(caller.ask::<i64>("PTTL", "leases/over", &[]).await > 1000);
    assert_eq!(caller.ask::<Option<u64>>("ZSCORE", "leases", &["over"]).await, None, "who has left stays out");
}
