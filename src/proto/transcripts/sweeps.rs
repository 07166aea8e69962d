//! Sweeps: when the next one comes.

use super::*;

#[test]
fn a_deadline_that_was_told_during_a_sweep_is_swept_for_after_it_however_late_its_answer_comes() {
    check_in(
        Script::with(CoreSettings { presence: true, ..settings(OnLost::Rejoin) }),
        "> up
         sweep
         plant
         ask
         list all
         > answer list 9
         snapshot []
         state connected
         > answer sweep
         > answer ask s
         probe s
         > answer probe yes
         seen 1
         > wait 20
         probe s
         > sync 1
         sweep
         list since 9 0
         > answer probe no
         shorten s:20
         seen 0
         > answer shorten 10
         > wait 20
         probe s
         > answer sweep due 300
         sweep
         > answer sweep due 280
         > wait 280
         > wait 1
         sweep",
    );
}
