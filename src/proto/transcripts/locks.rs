//! What the session does for locks: it is opened, its holds are audited, and what nobody wants is given back.

use super::*;

#[test]
fn a_grant_that_nobody_knows_is_looked_into_at_once() {
    check(&live("", "> audit"));
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         answer 1 joined a@10
         > audit
         extend c-1 from 0
         > wait 2
         > wait 1
         touch_canary",
    ));
}

#[test]
fn whoever_comes_first_opens_the_session_and_the_others_wait_for_it() {
    check(&live(
        "",
        "> open 1
         open c-1
         > open 2
         > join 3 a
         > answer open yes
         keep c-1
         answer 1 opened
         answer 2 opened
         join a in c-1 take nonce 3
         > open 4
         answer 4 opened",
    ));
}

#[test]
fn an_opening_whose_reply_is_lost_opens_the_same_session_again() {
    check(&live(
        "",
        "> open 1
         open c-1
         > down
         state suspended
         > up
         open c-1
         sweep
         plant
         list all
         > answer open lost
         open c-2
         > answer open yes
         keep c-2
         answer 1 opened",
    ));
}

#[test]
fn an_expired_lease_is_given_to_nobody() {
    check(&live(
        "",
        "> open 1
         open c-1
         > answer open yes
         keep c-1
         answer 1 opened
         > down
         state suspended
         > wait 985
         suspend
         expire
         state lost
         > up
         extend c-1 from 0
         sweep
         plant
         list all
         > open 2
         answer 2 Timeout
         > beat c-1 alive
         resume
         state suspended
         > open 3
         answer 3 opened",
    ));
}

#[test]
fn what_is_given_back_is_given_back_over_the_next_link_and_for_a_lost_session_too() {
    check(&live(
        "",
        "> open 1
         open c-1
         > answer open yes
         keep c-1
         answer 1 opened
         > give-back x#7
         release x#7
         > down
         state suspended
         > up
         release x#7
         extend c-1 from 0
         sweep
         plant
         list all
         > answer release true
         > beat c-1 lost
         release
         > give-back x#8
         release x#8",
    ));
}

#[test]
fn the_holds_are_asked_for_part_by_part() {
    check(&live(
        "",
        "> open 1
         open c-1
         > answer open yes
         keep c-1
         answer 1 opened
         > down
         state suspended
         > wait 700
         > beat c-1 alive
         > wait 700
         > beat c-1 alive
         > wait 700
         > beat c-1 alive
         > up
         extend c-1 from 0
         sweep
         plant
         list all
         > answer extend 5 x#1 y#2
         extend c-1 from 5
         > answer extend 0 z#3
         audited x#1 y#2 z#3",
    ));
}
