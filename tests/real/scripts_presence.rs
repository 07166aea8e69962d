//! The scripts of presence, each by itself.

use crate::scripts::Caller;
use crate::support::{Fixture, eventually};

fn words(value: redis::Value) -> Vec<String> {
    redis::from_redis_value(value).unwrap()
}

/// It gives so many places, for a while.
#[tokio::test]
async fn probers_gives_places_and_names_sessions() {
    let fixture = Fixture::new().await;
    let mut caller = Caller::new(&fixture).await;
    let ask = async |caller: &mut Caller, connector: &str, ms: &str| {
        words(caller.run("presence_probers", &["leases", "probers", "asks"], &[connector, ms, "2", "3"]).await)
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

/// It spares sessions that are present, have less time left, or have closed.
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
