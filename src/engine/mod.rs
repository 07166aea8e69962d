//! What runs the core: one task that puts in what happens and does what comes out, and the ways to it.

mod caller;
mod direct;
mod driver;
#[cfg(test)]
mod model;
mod publish;
mod validity;

pub(crate) use caller::{Caller, Claim, Claimed, Delivery};
pub(crate) use direct::Direct;
pub(crate) use driver::Driver;
pub(crate) use publish::{LinkReport, Publish};
pub(crate) use validity::Validity;
