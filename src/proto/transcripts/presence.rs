//! Presence: who looks, whom it gives less time, and what that means for oneself.

use super::*;

fn probing(rest: &str) -> String {
    format!(
        "> up
         sweep
         plant
         ask
         list all
         > answer list 9
         snapshot []
         state connected
         > answer sweep
         > answer ask s t
         probe s t
         > answer probe yes no
         shorten t:never
         seen 1
         {rest}"
    )
}

fn check_presence(transcript: &str) {
    check_in(Script::with(CoreSettings { presence: true, ..settings(OnLost::Rejoin) }), transcript);
}

#[test]
fn only_who_was_seen_before_is_given_less_time_and_once() {
    check_presence(&probing(
        "> wait 20
         probe s t
         > wait 5
         > answer probe no no
         shorten s:20
         seen 0
         > answer shorten 225
         > wait 20
         probe s t
         > answer probe no no
         > wait 20
         probe s t
         > answer probe yes no
         seen 1
         > wait 20
         probe s t
         > answer probe no yes
         shorten s:20
         > wait 20
         probe s t
         > wait 150
         sweep",
    ));
}

#[test]
fn unseen_session_is_judged_once_after_each_ask() {
    check_presence(&probing(
        "> wait 20
         probe s t
         > answer probe yes no
         > wait 480
         ask
         probe s t
         > answer ask s t
         > answer probe yes no
         shorten t:never
         > answer shorten 225
         > wait 20
         probe s t
         > answer probe yes yes
         seen 2
         > wait 20
         probe s t
         > answer probe yes no
         shorten t:20
         seen 1
         > wait 20
         probe s t
         > answer probe yes no",
    ));
}

/// What has cut off this connector may have cut off the session too.
#[test]
fn young_link_judges_only_whom_it_has_seen() {
    let settling = Duration::from_millis(30);
    let transcript = probing(
        "> wait 20
         probe s t
         > answer probe no no
         shorten s:20
         seen 0
         > wait 20
         probe s t
         > answer probe no no
         shorten t:never",
    );
    let transcript = transcript.replacen("shorten t:never\n", "", 1);
    check_in(Script::with(CoreSettings { presence: true, settling, ..settings(OnLost::Rejoin) }), &transcript);
}

#[test]
fn connector_without_a_place_takes_that_of_a_prober_that_is_gone() {
    check_presence(
        "> up
         sweep
         plant
         ask
         list all
         > answer list 9
         snapshot []
         state connected
         > answer sweep
         > answer ask no 2 p q
         > wait 40
         check p q
         > answer check yes yes
         > wait 39
         > wait 1
         check p q
         > answer check yes no
         ask
         > answer ask s t
         probe s t
         > answer probe no yes
         shorten s:never
         seen 1",
    );
}

#[test]
fn session_seen_over_another_link_is_judged_by_its_mark() {
    check_presence(&probing(
        "> down
         state suspended
         > up
         sweep
         plant
         ask
         list all
         > answer ask s
         seen 0
         probe s
         > answer probe no
         shorten s:never
         > wait 20
         probe s",
    ));
}

#[test]
fn who_gets_no_place_asks_again_later_and_who_may_not_look_does_not() {
    check_presence(&probing(
        "> wait 500
         ask
         probe s t
         > answer probe yes yes
         seen 2
         > answer ask no 30
         seen 0
         > wait 350
         sweep
         list since 9 0
         > wait 249
         > wait 1
         ask
         > answer ask no 100
         > wait 1199
         > wait 1
         ask
         > answer ask no 2
         > wait 599
         > wait 1
         ask
         > answer ask no 2
         > wait 499
         > wait 1
         ask
         > answer ask refused
         warn
         > wait 1000
         ask",
    ));
}

#[test]
fn a_cut_lease_is_suspended_and_held_again_when_the_server_says_so() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         answer 1 joined a@10
         > wait 3
         touch_canary
         > beat c-1 cut
         state suspended
         > wait 99
         > wait 1
         suspend
         a suspended 10
         > beat c-1 alive
         a holds 10
         extend c-1 from 0
         > answer extend 0 x#1
         audited x#1
         resume
         state connected",
    ));
}

#[test]
fn a_suspended_lease_expires_with_its_ttl() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         answer 1 joined a@10
         > wait 3
         touch_canary
         > beat c-1 cut
         state suspended
         > wait 100
         suspend
         a suspended 10
         > wait 877
         expire
         a lost expired
         sweep
         list since 9 0
         state lost
         > beat c-1 alive
         resume
         a holds 10
         state connected",
    ));
}

#[test]
fn a_guard_that_sees_the_lease_unvouched_first_suspends_it() {
    check(&live(
        "",
        "> open 1
         open c-1
         > answer open yes
         keep c-1
         answer 1 opened
         > unvouched
         suspend
         extend c-1 from 0
         state suspended
         > open 2
         answer 2 Timeout
         > answer extend 0 x#1
         audited x#1
         resume
         state connected",
    ));
}

#[test]
fn an_audit_from_before_the_suspension_resumes_nothing() {
    check(&live(
        "",
        "> open 1
         open c-1
         > answer open yes
         keep c-1
         answer 1 opened
         > wait 3
         touch_canary
         > audit
         extend c-1 from 0
         > beat c-1 cut
         state suspended
         > wait 100
         suspend
         > answer extend 0 x#1
         audited x#1
         > beat c-1 alive
         extend c-1 from 0
         > answer extend 0 x#1
         audited x#1
         resume
         state connected",
    ));
}

#[test]
fn whose_member_joins_is_looked_for_at_once() {
    check_presence(
        "> up
         sweep
         plant
         ask
         list all
         > answer list 9
         snapshot []
         state connected
         > answer sweep
         > answer ask t
         probe t
         > answer probe yes
         seen 1
         > hear set a
         read a
         > answer read a@10
         joined a@10/10
         > wait 20
         probe o t",
    );
}
