//! The handle that a join answers.

use std::collections::BTreeSet;
use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::engine::{Caller, Claim, Claimed, Delivery, Direct};
use crate::error::{Error, ErrorKind};
use crate::model::{Incarnation, LeaveCause, MemberDraft, MemberId, Metadata, check_metadata, check_tags, to_json};
use crate::proto::{Answer, Edit, Request, Standing};
use crate::settings::CallTimeout;
use crate::transport::Vouched;

/// Typed metadata as JSON.
pub(crate) fn typed(value: &impl Serialize) -> Result<Metadata, Error> {
    let json = to_json(ErrorKind::InvalidMetadata, "the metadata", value)?;
    let raw = RawValue::from_string(json);
    raw.map(Metadata::Json)
        .map_err(|error| Error::caused_by(ErrorKind::InvalidMetadata, "the metadata is no JSON", error))
}

/// A join that has not begun: await it.
///
/// Made by [`GroupConnector::join`](crate::GroupConnector::join). It answers a [`Membership`], in one round trip.
///
/// # Errors
/// Before any I/O: [`ErrorKind::InvalidName`], [`ErrorKind::InvalidMetadata`], [`ErrorKind::AlreadyJoined`],
/// [`ErrorKind::Config`] for a timeout out of range.
/// From the server: [`ErrorKind::Conflict`] (with [`OnConflict::Reject`](crate::OnConflict::Reject)),
/// [`ErrorKind::OutOfMemory`], [`ErrorKind::ForeignValue`], [`ErrorKind::Denied`], [`ErrorKind::Timeout`].
/// [`ErrorKind::Closed`] after [`close`](crate::GroupConnector::close).
///
/// # Cancel safety
/// Dropped before it has answered, the member has either never joined or is taken out again at once.
#[must_use = "a join does nothing unless it is awaited"]
pub struct Join {
    direct: Direct,
    id: Result<MemberId, Error>,
    draft: Result<MemberDraft, Error>,
    timeout: CallTimeout,
}

impl Join {
    pub(crate) fn new(direct: Direct, id: Result<MemberId, Error>, timeout: CallTimeout) -> Self {
        Self { direct, id, draft: Ok(MemberDraft::default()), timeout }
    }

    /// How long the join may take, in place of [the connector's timeout](crate::GroupConnector::timeout). The
    /// [`Membership`] keeps it for its own calls.
    ///
    /// As long as it lasts, a join that is not answered is sent again over each new link, and is done once. When it is
    /// over, the join ends with [`ErrorKind::Timeout`] and is given up: if the server has done it, or does it later, the
    /// member is taken out again. [`Error::is_unapplied`] is `true` if the join was never sent.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = CallTimeout::given(timeout);
        self
    }

    fn with(mut self, set: impl FnOnce(&mut MemberDraft) -> Result<(), Error>) -> Self {
        self.draft = self.draft.and_then(|mut draft| set(&mut draft).map(|()| draft));
        self
    }

    /// Metadata of any type, kept as JSON.
    pub fn metadata(self, value: &impl Serialize) -> Self {
        self.with(|draft| {
            draft.metadata = typed(value)?;
            Ok(())
        })
    }

    /// Metadata as it is.
    pub fn text(self, text: impl Into<String>) -> Self {
        self.with(|draft| {
            draft.metadata = Metadata::Text(text.into().into());
            Ok(())
        })
    }

    /// One more tag: a sub-group that the member belongs to.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.tags([tag])
    }

    /// More tags.
    pub fn tags<T: Into<String>>(self, tags: impl IntoIterator<Item = T>) -> Self {
        self.with(|draft| {
            draft.tags.extend(tags.into_iter().map(Into::into));
            Ok(())
        })
    }

    async fn run(self) -> Result<Membership, Error> {
        let draft = self.draft?;
        check_metadata(&draft.metadata)?;
        check_tags(&draft.tags)?;
        let (caller, limit) = (self.direct.caller().clone(), self.timeout.limit()?);
        // Joined over a later link, it is not known what the replicas of this one have: then the link has failed.
        let link = self.direct.present_link();
        match caller.call(Request::Join(self.id?, draft), limit).await? {
            Delivery::Joined(claim) => {
                self.direct.acknowledged(link, "the join").await?;
                Ok(Membership::new(caller, claim, self.timeout))
            }
            Delivery::Done(_) => Err(Error::unexpected("the request")),
        }
    }
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join").field("id", &self.id).finish_non_exhaustive()
    }
}

impl IntoFuture for Join {
    type Output = Result<Membership, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A member of this connector.
///
/// # Dropping it does not leave
/// A membership ends by [`leave`](Self::leave), by [`GroupConnector::leave`](crate::GroupConnector::leave), or with
/// its connector. The handle serves to change the member, and to learn when the membership is lost.
pub struct Membership {
    caller: Caller,
    id: MemberId,
    standing: watch::Receiver<Standing>,
    vouched: Vouched,
    timeout: CallTimeout,
}

impl Membership {
    fn new(caller: Caller, claim: Claim, timeout: CallTimeout) -> Self {
        let Claimed { id, standing, vouched, .. } = claim.take();
        Self { caller, id, standing, vouched, timeout }
    }

    /// How long each call of this handle may take from now on, in place of
    /// [the connector's timeout](crate::GroupConnector::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = CallTimeout::given(timeout);
        self
    }

    /// The member's name.
    #[must_use]
    pub fn id(&self) -> &MemberId {
        &self.id
    }

    /// The present incarnation, or `None` while the membership is lost, or may be by the clock. No I/O.
    ///
    /// It rises with every join of the group, so it serves as a fencing token.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        match *self.standing.borrow() {
            Standing::Held(incarnation) => self.vouched.holds().then_some(incarnation),
            Standing::Suspended(_) | Standing::Lost(_) | Standing::Ended(_) => None,
        }
    }

    /// Whether the connector vouches for the membership at this moment, by its own clock. No I/O.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.incarnation().is_some()
    }

    /// Waits until the membership cannot be relied on: suspended, lost or ended. At once where it is not held.
    ///
    /// It comes before another session may take over: the connector counts from the sending of its last acknowledged
    /// heartbeat, and where its connection is closed, half of its grace from then. A suspended membership is held
    /// again, as the same incarnation, where the server says that the lease lived.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn suspended(&self) {
        let mut standing = self.standing.clone();
        // The connector that could say more is gone where this fails.
        let _ = standing.wait_for(|standing| !matches!(standing, Standing::Held(_)) || !self.vouched.holds()).await;
    }

    /// Waits until the present incarnation is lost, and says why; at once if there is none.
    ///
    /// It is lost when the server says so, or when the ttl has passed since the last acknowledged heartbeat. Before
    /// that the membership is [suspended](Self::suspended). With [`OnLost::Rejoin`](crate::OnLost::Rejoin) the
    /// membership may be held again later, as a new incarnation or, where the server turns out to have heard the
    /// heartbeats after all, the same one; then this can be awaited anew. The cause is [`LeaveCause::Expired`] as well
    /// where the runtime that the connector was made on has ended: nothing keeps the lease alive.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn lost(&self) -> LeaveCause {
        let mut standing = self.standing.clone();
        let mine = match *standing.borrow() {
            Standing::Held(incarnation) | Standing::Suspended(incarnation) => incarnation,
            Standing::Lost(cause) | Standing::Ended(cause) => return cause,
        };
        let is_mine = |standing: &Standing| [Standing::Held(mine), Standing::Suspended(mine)].contains(standing);
        match standing.wait_for(|standing| !is_mine(standing)).await.as_deref() {
            Ok(Standing::Lost(cause) | Standing::Ended(cause)) => *cause,
            Ok(Standing::Held(_) | Standing::Suspended(_)) => LeaveCause::Expired,
            Err(_) => LeaveCause::Left,
        }
    }

    /// Waits until the membership is held, and answers its incarnation: at once if it is; `None` once it has ended.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn held(&self) -> Option<Incarnation> {
        let (mut standing, mut vouched) = (self.standing.clone(), self.vouched.clone());
        loop {
            match *standing.borrow_and_update() {
                Standing::Held(incarnation) if vouched.holds() => return Some(incarnation),
                Standing::Held(_) | Standing::Suspended(_) | Standing::Lost(_) => {}
                Standing::Ended(_) => return None,
            }
            tokio::select! {
                changed = standing.changed() => changed.ok()?,
                extended = vouched.extended() => extended?,
            }
        }
    }

    async fn edit(&self, edit: Edit) -> Result<(), Error> {
        self.caller.call(Request::Edit(self.id.clone(), edit), self.timeout.limit()?).await.map(drop)
    }

    /// Replaces the metadata. One round trip; every watcher sees one `Updated`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidMetadata`] before any I/O; [`ErrorKind::Lost`] if the membership has ended;
    /// [`ErrorKind::OutOfMemory`], [`ErrorKind::Timeout`], [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the change is made, or not made.
    pub async fn update(&self, metadata: &impl Serialize) -> Result<(), Error> {
        let metadata = typed(metadata)?;
        check_metadata(&metadata)?;
        self.edit(Edit::Metadata(metadata)).await
    }

    /// Replaces the metadata by text as it is. Otherwise like [`update`](Self::update).
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the change is made, or not made.
    pub async fn update_text(&self, text: impl Into<String>) -> Result<(), Error> {
        let metadata = Metadata::Text(text.into().into());
        check_metadata(&metadata)?;
        self.edit(Edit::Metadata(metadata)).await
    }

    /// Adds tags: sub-groups that the member belongs to. One round trip.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidName`] before any I/O; otherwise as for [`update`](Self::update).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the change is made, or not made.
    pub async fn add_tags<T: Into<String>>(&self, tags: impl IntoIterator<Item = T>) -> Result<(), Error> {
        let tags: BTreeSet<String> = tags.into_iter().map(Into::into).collect();
        check_tags(&tags)?;
        self.edit(Edit::AddTags(tags)).await
    }

    /// Removes tags. One round trip.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the change is made, or not made.
    pub async fn remove_tags<T: Into<String>>(&self, tags: impl IntoIterator<Item = T>) -> Result<(), Error> {
        let tags = tags.into_iter().map(Into::into).collect();
        self.edit(Edit::RemoveTags(tags)).await
    }

    /// Joins again after the membership was lost for good: with [`OnLost::Stop`](crate::OnLost::Stop), or when it
    /// was replaced. Does nothing while it is held. One round trip.
    ///
    /// # Errors
    /// [`ErrorKind::Lost`] after a leave: join anew. Otherwise as for [`Join`].
    ///
    /// # Cancel safety
    /// Dropped before it has answered, the member has either not joined or is taken out again at once.
    pub async fn rejoin(&self) -> Result<Incarnation, Error> {
        match self.caller.call(Request::Rejoin(self.id.clone()), self.timeout.limit()?).await? {
            Delivery::Joined(claim) => Ok(claim.take().incarnation),
            Delivery::Done(Answer::Held(incarnation)) => Ok(incarnation),
            Delivery::Done(_) => Err(Error::unexpected("the request")),
        }
    }

    /// Leaves the group, and answers whether there was a membership to end. One round trip.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], or that of a server that refuses it: the membership is given up all the same, and the
    /// server is told as soon as it can be, if the lease has not run out by then. [`ErrorKind::Closed`].
    ///
    /// # Cancel safety
    /// Once polled, it leaves even if it is dropped.
    pub async fn leave(self) -> Result<bool, Error> {
        self.caller.leave(self.id, self.timeout.limit()?).await
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("id", &self.id).field("standing", &*self.standing.borrow()).finish()
    }
}
