//! What is to be compared, as data.

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Scale {
    Quick,
    #[default]
    Full,
}

impl Scale {
    pub(crate) fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        self.pick("quick", "full")
    }

    pub(crate) fn of(name: &str) -> Self {
        if name == "quick" { Self::Quick } else { Self::Full }
    }
}

/// Which program a contestant is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// This one, with this crate: where there is an older build, it is measured as well.
    Ours,
    /// That of the older build.
    Before,
    /// This one, without this crate.
    Base,
    /// That of the peers.
    Peer,
}

#[derive(Clone)]
pub(crate) struct Contestant {
    pub(crate) label: String,
    pub(crate) by: By,
    /// What its process is told to measure.
    pub(crate) way: String,
}

impl Contestant {
    fn new(label: &str, by: By, way: &str) -> Self {
        Self { label: label.to_owned(), by, way: way.to_owned() }
    }
}

pub(crate) fn ours(label: &str, way: &str) -> Contestant {
    Contestant::new(label, By::Ours, way)
}

pub(crate) fn base(label: &str, way: &str) -> Contestant {
    Contestant::new(label, By::Base, way)
}

pub(crate) fn peer(label: &str, way: &str) -> Contestant {
    Contestant::new(label, By::Peer, way)
}

/// The contestant that is the older build of that one.
pub(crate) fn before(label: &str) -> String {
    format!("{label} before")
}

#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl Goal {
    pub(crate) fn is_met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(value <= most),
            Self::AtLeast(least) => Some(value >= least),
            Self::None => None,
        }
    }
}

/// A figure of a contestant.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) label: String,
    pub(crate) figure: String,
}

pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) of: Reading,
    /// Without it the figure itself is judged.
    pub(crate) against: Option<Reading>,
    pub(crate) base_name: Option<String>,
    pub(crate) percentile: usize,
    pub(crate) goal: Goal,
}

pub(crate) fn row(what: impl AsRef<str>, label: &str, figure: &str) -> Row {
    Row {
        what: what.as_ref().to_owned(),
        of: Reading { label: label.to_owned(), figure: figure.to_owned() },
        against: None,
        base_name: None,
        percentile: 50,
        goal: Goal::None,
    }
}

impl Row {
    pub(crate) fn against(mut self, label: &str, figure: &str, goal: Goal) -> Self {
        self.against = Some(Reading { label: label.to_owned(), figure: figure.to_owned() });
        self.goal = goal;
        self
    }

    pub(crate) fn against_before(self, goal: Goal) -> Self {
        let (label, figure) = (before(&self.of.label), self.of.figure.clone());
        self.against(&label, &figure, goal)
    }

    pub(crate) fn absolute(mut self, goal: Goal) -> Self {
        self.what = format!("{}, p{}", self.what, self.percentile);
        self.goal = goal;
        self
    }

    pub(crate) fn percentile(mut self, percentile: usize) -> Self {
        self.percentile = percentile;
        self
    }

    /// What the base is called, where it is another figure of the same contestant.
    pub(crate) fn base_is(mut self, name: &str) -> Self {
        self.base_name = Some(name.to_owned());
        self
    }
}

pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) rounds: usize,
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) rows: Vec<Row>,
    pub(crate) own_servers: bool,
    pub(crate) at_once: bool,
}

impl Subject {
    pub(crate) fn new(name: impl Into<String>, rounds: usize) -> Self {
        let (contestants, rows) = (Vec::new(), Vec::new());
        Self { name: name.into(), rounds, contestants, rows, own_servers: false, at_once: false }
    }

    /// Each contestant that is ours is followed by its older build.
    pub(crate) fn compares(mut self, contestants: impl IntoIterator<Item = Contestant>) -> Self {
        for contestant in contestants {
            let older = (contestant.by == By::Ours)
                .then(|| Contestant::new(&before(&contestant.label), By::Before, &contestant.way));
            self.contestants.push(contestant);
            self.contestants.extend(older);
        }
        self
    }

    pub(crate) fn rows(mut self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// Where what one contestant keeps up would be counted for another.
    pub(crate) fn on_servers_of_their_own(mut self) -> Self {
        self.own_servers = true;
        self
    }

    /// All in the same seconds: what the machine does beside it would else be taken for the difference.
    pub(crate) fn all_at_once(mut self) -> Self {
        self.at_once = true;
        self
    }
}
