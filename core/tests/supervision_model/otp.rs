//! OTP's supervisor as its documentation tells it: one thing after another, and everything it asks for done at once.

/// How a child is declared: permanent `'p'`, transient `'t'` or temporary `'x'`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kid {
    pub(crate) name: u8,
    pub(crate) kind: char,
    pub(crate) significant: bool,
    /// The supervisor believes that it runs.
    pub(crate) has_pid: bool,
    /// It really does.
    pub(crate) breathes: bool,
}

/// What an outside observer of the children sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Start(u8),
    Stop(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Told,
    NotBooted(u8),
    TooManyRestarts(u8),
    AutoShutdown(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ok,
    NotFound,
    Running,
    AlreadyPresent,
    TooMany,
    SimpleOneForOne,
    BadSpec,
}

/// `"one"`, `"all"`, `"rest"` or `"simple"`; `"never"`, `"any"` or `"every"`.
#[derive(Debug)]
pub(crate) struct Otp {
    pub(crate) strategy: &'static str,
    pub(crate) auto_shutdown: &'static str,
    pub(crate) intensity: usize,
    pub(crate) period_ms: u64,
    pub(crate) max_children: usize,
    /// In start order.
    pub(crate) kids: Vec<Kid>,
    /// How many more starts of each name fail.
    pub(crate) failing: Vec<u8>,
    pub(crate) restarts_ms: Vec<u64>,
    pub(crate) now_ms: u64,
    pub(crate) seen: Vec<Seen>,
    pub(crate) over: Option<Over>,
}

impl Otp {
    pub(crate) fn boot(&mut self) {
        for name in self.kids.iter().map(|kid| kid.name).collect::<Vec<_>>() {
            if !self.start(name) {
                return self.finish(Over::NotBooted(name));
            }
        }
    }

    /// The children die in this order, and then the supervisor reads its mailbox.
    pub(crate) fn exits(&mut self, deaths: &[(u8, &str)]) {
        for (name, _) in deaths {
            self.kid(*name).breathes = false;
        }
        for (name, reason) in deaths {
            let waits = self.kids.iter().any(|kid| kid.name == *name && kid.has_pid && !kid.breathes);
            if waits && self.over.is_none() {
                self.read_exit(*name, reason);
            }
        }
    }

    pub(crate) fn start_child(&mut self, kid: Kid) -> Answer {
        if kid.significant && (kid.kind == 'p' || self.auto_shutdown == "never") {
            return Answer::BadSpec;
        }
        if let Some(there) = self.kids.iter().find(|there| there.name == kid.name) {
            return if there.has_pid { Answer::Running } else { Answer::AlreadyPresent };
        }
        if self.kids.len() == self.max_children {
            return Answer::TooMany;
        }
        self.kids.push(kid);
        if !self.start(kid.name) {
            self.kids.pop();
        }
        Answer::Ok
    }

    pub(crate) fn terminate_child(&mut self, name: u8) -> Answer {
        if !self.kids.iter().any(|kid| kid.name == name) {
            return Answer::NotFound;
        }
        self.stop(name);
        self.delete_if_not_kept(name);
        Answer::Ok
    }

    pub(crate) fn restart_child(&mut self, name: u8) -> Answer {
        match self.kids.iter().find(|kid| kid.name == name) {
            _ if self.strategy == "simple" => Answer::SimpleOneForOne,
            None => Answer::NotFound,
            Some(kid) if kid.has_pid => Answer::Running,
            Some(_) => {
                self.start(name);
                Answer::Ok
            }
        }
    }

    pub(crate) fn delete_child(&mut self, name: u8) -> Answer {
        match self.kids.iter().find(|kid| kid.name == name) {
            _ if self.strategy == "simple" => Answer::SimpleOneForOne,
            None => Answer::NotFound,
            Some(kid) if kid.has_pid => Answer::Running,
            Some(_) => {
                self.kids.retain(|kid| kid.name != name);
                Answer::Ok
            }
        }
    }

    pub(crate) fn finish(&mut self, over: Over) {
        let mut order: Vec<u8> = self.kids.iter().map(|kid| kid.name).collect();
        // Dynamic children are stopped in no order, so in any: this one is ours.
        if self.strategy != "simple" {
            order.reverse();
        }
        order.into_iter().for_each(|name| self.stop(name));
        self.over = Some(over);
    }

    fn read_exit(&mut self, name: u8, reason: &str) {
        let kid = *self.kid(name);
        if kid.kind == 'p' || (kid.kind == 't' && reason == "crash") {
            return self.restart(name);
        }
        self.kid(name).has_pid = false;
        self.delete_if_not_kept(name);
        let significant_left = self.kids.iter().any(|other| other.significant && other.has_pid);
        let shuts_down = match self.auto_shutdown {
            "any" => true,
            "every" => !significant_left,
            _ => false,
        };
        if kid.significant && shuts_down {
            self.finish(Over::AutoShutdown(name));
        }
    }

    fn restart(&mut self, failed: u8) {
        let mut failed = failed;
        loop {
            let (now, period) = (self.now_ms, self.period_ms);
            self.restarts_ms.retain(|at| now - at < period);
            self.restarts_ms.push(now);
            self.kid(failed).has_pid = false;
            if self.restarts_ms.len() > self.intensity {
                return self.finish(Over::TooManyRestarts(failed));
            }
            let place = self.kids.iter().position(|kid| kid.name == failed).unwrap();
            let group: Vec<u8> = match self.strategy {
                "one" | "simple" => vec![failed],
                "rest" => self.kids[place..].iter().map(|kid| kid.name).collect(),
                _ => self.kids.iter().map(|kid| kid.name).collect(),
            };
            group.iter().rev().for_each(|name| self.stop(*name));
            self.kids.retain(|kid| kid.kind != 'x' || !group.contains(&kid.name));
            let to_start = self.kids.iter().filter(|kid| group.contains(&kid.name)).map(|kid| kid.name);
            let to_start: Vec<u8> = to_start.collect();
            match to_start.into_iter().find(|name| !self.start(*name)) {
                Some(name) => failed = name,
                None => return,
            }
        }
    }

    fn start(&mut self, name: u8) -> bool {
        self.seen.push(Seen::Start(name));
        let failing = &mut self.failing[usize::from(name)];
        let starts = *failing == 0;
        *failing = failing.saturating_sub(1);
        let kid = self.kid(name);
        (kid.has_pid, kid.breathes) = (starts, starts);
        starts
    }

    fn stop(&mut self, name: u8) {
        if self.kid(name).breathes {
            self.seen.push(Seen::Stop(name));
        }
        let kid = self.kid(name);
        (kid.has_pid, kid.breathes) = (false, false);
    }

    fn delete_if_not_kept(&mut self, name: u8) {
        let simple = self.strategy == "simple";
        self.kids.retain(|kid| kid.name != name || (kid.kind != 'x' && !simple));
    }

    fn kid(&mut self, name: u8) -> &mut Kid {
        self.kids.iter_mut().find(|kid| kid.name == name).unwrap()
    }
}
