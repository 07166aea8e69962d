//! Requests whose time is up: what they say, and what becomes of what they have asked for.

use super::*;

#[test]
fn a_join_under_way_is_given_up_and_taken_back_when_it_is_answered() {
    check(&live(
        "",
        "> join 1 a within 2
         join a opening c-1 take nonce 1
         > wait 2
         answer 1 Timeout perhaps
         a ended left
         > answer join 10
         keep c-1
         joined a@10/10
         leave a@10
         > answer leave true
         left a@10/10 left",
    ));
}

#[test]
fn a_join_that_was_never_sent_says_so() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > join 2 b within 2
         > wait 2
         answer 2 Timeout
         b ended left",
    ));
}

#[test]
fn a_longer_timeout_outlasts_an_outage_and_joins_once() {
    check(&live(
        "",
        "> join 1 a within 60000
         join a opening c-1 take nonce 1
         > down
         state suspended
         > wait 30000
         > up
         join a opening c-1 take nonce 1
         sweep
         plant
         list all
         > answer list 9
         snapshot []
         state connected
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         answer 1 joined a@10",
    ));
}

/// The server does the join after the leave that was to undo it: the connections were not closed in that order.
#[test]
fn a_join_that_was_given_up_and_is_done_late_is_taken_back() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         answer 1 joined a@10
         > join 2 b within 2
         join b in c-1 take nonce 2
         > down
         state suspended
         > wait 2
         answer 2 Timeout perhaps
         b ended left
         > up
         leave b@any
         renew c-1 a
         extend c-1 from 0
         sweep
         plant
         list all
         > answer leave false
         read b
         > answer read left
         > answer list 10 a@10:c-1
         snapshot [a@10/10]
         state connected
         > hear set b
         read b
         > answer read b@11:c-1
         joined b@11/11
         leave b@11
         > answer leave true
         left b@11/11 left",
    ));
}

#[test]
fn an_edit_under_way_is_given_up_and_not_sent_again() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         answer 1 joined a@10
         > text 2 a x within 2
         update a@10 x nonce 2
         > wait 2
         answer 2 Timeout perhaps
         > text 3 a y
         > down
         state suspended
         > up
         update a@10 y nonce 3
         renew c-1 a
         extend c-1 from 0
         sweep
         plant
         list all",
    ));
}

#[test]
fn a_close_that_is_not_answered_in_time_ends_the_connector() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         answer 1 joined a@10
         > close 2 within 2
         release
         a ended left
         close c-1
         > wait 2
         answer 2 Timeout perhaps
         state closed
         closed",
    ));
}
