//! Names and values are data: whatever they hold, they are no code to a script and no pattern to a subscription.

use group_redis::Member;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::support::{Fixture, PATIENCE};

const SAMPLES: usize = 60;

/// What has a meaning in Lua, in JSON, in a pattern, in a key or in this library's own records, and anything else.
fn text() -> impl Strategy<Value = String> {
    let part = proptest::string::string_regex("[*?{}/\\[\\]\\\\^%'\"\n\r\t :;,=-]|\\]\\]|--|\\x00|[a-z]|\\PC").unwrap();
    proptest::collection::vec(part, 1..24).prop_map(|parts| parts.concat())
}

fn has(member: &Member, value: &str) -> bool {
    member.text() == Some(value) && member.tags().eq([value])
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_values_are_never_code() {
    let fixture = Fixture::new().await;
    let (group, other) = (fixture.connect().await, fixture.connect().await);
    let bystander = other.join("bystander").await.unwrap();
    let held = other.lock("bystander").try_acquire().await.unwrap().unwrap();
    other.ephemeral().set("bystander", &1).await.unwrap();
    other.persistent().set("bystander", &1).await.unwrap();

    let mut runner = TestRunner::default();
    for _ in 0..SAMPLES {
        let (name, value) =
            (text().new_tree(&mut runner).unwrap().current(), text().new_tree(&mut runner).unwrap().current());
        let told = format!("{name:?} with {value:?}");
        let me = group.join(&name).text(&*value).tag(&*value).await.expect(&told);
        // Until this one is seen, another sample's member of the same name may be.
        let is_mine = |member: &Member| member.id().as_str() == name && has(member, &value);
        other.wait_for(PATIENCE, |view| view.iter().any(|member| is_mine(member))).await.expect(&told);

        let guard = group.lock(&name).as_member(&value).try_acquire().await.expect(&told).expect(&told);
        assert!(other.lock(&name).try_acquire().await.expect(&told).is_none(), "{told}");
        let holders = other.lock(&name).holders().await.expect(&told);
        assert_eq!(holders.len(), 1, "{told}");
        assert_eq!(holders[0].member.as_str(), value, "{told}");
        guard.fenced().set(&name, &value).await.expect(&told);
        assert_eq!(group.persistent().get::<String>(&name).await.expect(&told).as_deref(), Some(&*value), "{told}");
        assert!(guard.release().await, "{told}");

        group.ephemeral().set(&name, &value).await.expect(&told);
        assert_eq!(other.ephemeral().get::<String>(&name).await.expect(&told).as_deref(), Some(&*value), "{told}");
        // A name that the bystander's begins with is a prefix of both.
        let begun: Vec<_> = [&*name, "bystander"].into_iter().filter(|key| key.starts_with(&name)).collect();
        assert_eq!(other.ephemeral().list(&name).await.expect(&told), begun, "{told}");
        assert!(group.ephemeral().del(&name).await.expect(&told), "{told}");
        assert!(group.persistent().del(&name).await.expect(&told), "{told}");
        me.leave().await.expect(&told);
    }
    assert!(bystander.is_held() && held.is_held());
    assert_eq!(other.ephemeral().list("").await.unwrap(), ["bystander"]);
    assert_eq!(other.persistent().list("").await.unwrap(), ["bystander"]);
}
