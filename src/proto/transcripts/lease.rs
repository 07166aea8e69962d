//! The lease: how it is lost and won again, and the renewal of what lives by it.

use super::requests::joined;
use super::*;

#[test]
fn a_lost_lease_is_a_new_session_and_yields_to_whoever_came_between() {
    check(&joined(
        "> beat c-1 lost
         release
         a lost expired
         join a opening c-2 rejoin nonce 2
         read a
         state lost
         > answer join 20
         keep c-2
         a holds 20
         left a@10/10 expired, joined a@20/20
         state connected
         > answer read expired
         read a
         > answer read a@20",
    ));
    check(&joined(
        "> beat c-1 lost
         release
         a lost expired
         join a opening c-2 rejoin nonce 2
         read a
         state lost
         > answer join taken
         a ended replaced
         state connected
         > answer read a@15
         left a@10/10 replaced, joined a@15/15",
    ));
}

#[test]
fn who_stops_stays_away_until_asked() {
    check_with(
        OnLost::Stop,
        &joined(
            "> beat c-1 lost
             release
             a ended expired
             read a
             state lost
             > answer read expired
             left a@10/10 expired
             > text 2 a x
             answer 2 Lost
             > rejoin 3 a
             join a opening c-2 take nonce 2
             state connected
             > answer join 20
             keep c-2
             a holds 20
             joined a@20/20
             answer 3 joined a@20",
        ),
    );
}

#[test]
fn a_lease_not_heard_of_is_lost_before_others_can_have_it_and_found_again() {
    check(&joined(
        "> wait 3
         touch_canary
         > canary set
         > canary del
         > canary expired
         proven Keyspace
         > beat c-1 missed
         state suspended
         > wait 846
         > wait 131
         suspend
         a suspended 10
         expire
         a lost expired
         sweep
         plant
         list since 9 0
         state lost
         > beat c-1 alive
         resume
         a holds 10
         state connected
         > beat c-0 lost",
    ));
}

#[test]
fn a_reply_for_a_session_that_was_lost_does_not_count_for_the_next() {
    check(&joined(
        "> join 2 b
         join b in c-1 take nonce 2
         > beat c-1 lost
         release
         a lost expired
         join a opening c-2 rejoin nonce 3
         read a
         state lost
         > answer join 11
         > answer join 20
         keep c-2
         a holds 20
         left a@10/10 expired, joined a@20/20
         join b in c-2 take nonce 2
         state connected
         > answer join 21
         b holds 21
         joined b@21/21
         answer 2 joined b@21",
    ));
}

#[test]
fn without_memory_a_join_says_so_and_a_rejoin_tries_again() {
    check(&live(
        "",
        "> join 1 a\njoin a opening c-1 take nonce 1\n> answer join full\na ended left\nanswer 1 OutOfMemory",
    ));
    check(&joined(
        "> beat c-1 lost
         release
         a lost expired
         join a opening c-2 rejoin nonce 2
         read a
         state lost
         > answer join full
         warn
         > wait 99
         touch_canary
         > wait 1
         join a opening c-3 rejoin nonce 2",
    ));
}

#[test]
fn the_safety_ttl_is_renewed_and_strangers_are_looked_at() {
    check(&joined(
        "> canary set
         > canary del
         > canary expired
         proven Keyspace
         > wait 700
         > beat c-1 alive
         > wait 700
         sweep
         plant
         list since 9 0
         > beat c-1 alive
         > wait 600
         renew c-1 a
         extend c-1 from 0
         > answer renew a
         read a",
    ));
}

#[test]
fn the_safety_ttl_is_renewed_over_each_new_link_since_the_server_may_have_lost_the_last_renewal() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         answer 1 joined a@10
         > down
         state suspended
         > up
         renew c-1 a
         extend c-1 from 0
         sweep
         plant
         list all",
    ));
}

#[test]
fn a_renewal_of_the_safety_ttl_that_fails_is_tried_again_soon() {
    let due = "> canary set
         > canary del
         > canary expired
         proven Keyspace
         > wait 700
         > beat c-1 alive
         > wait 700
         sweep
         plant
         list since 9 0
         > beat c-1 alive
         > wait 600
         renew c-1 a
         extend c-1 from 0";
    // The link that was to bring the answer has gone.
    check(&joined(&format!(
        "{due}
         > answer renew
         > down
         unproven Keyspace
         state suspended
         > link
         listen Keyspace
         renew c-1 a
         extend c-1 from 0"
    )));
    check(&joined(&format!(
        "{due}
         > answer extend broken
         unproven Keyspace
         drop link Connection
         state suspended
         > link
         listen Keyspace
         renew c-1 a
         extend c-1 from 0"
    )));
    check(&joined(&format!(
        "{due}
         > answer renew
         > answer extend refused
         warn
         > beat c-1 alive
         > wait 499
         > wait 1
         renew c-1 a
         extend c-1 from 0"
    )));
}

#[test]
fn who_rejoins_a_server_that_has_forgotten_higher_incarnations_is_not_replaced() {
    check(&joined(
        "> beat c-1 lost
         release
         a lost expired
         join a opening c-2 rejoin nonce 2
         read a
         state lost
         > answer join 4
         keep c-2
         a holds 4
         left a@10/10 expired
         state connected
         > answer read expired
         read a
         > answer read a@4
         joined a@4/4",
    ));
}
