//! Exploration of every reachable state, which checks each and that the end is reachable from each.

use std::{collections::HashMap, fmt};

use super::{
    Rules,
    world::{Step, World},
};

/// Limit that only an unbounded model exceeds.
const STATES_MAX: usize = 3_000_000;

/// Violated property with the steps that lead to it.
pub(super) struct Violation {
    pub(super) what: &'static str,
    trace: Vec<&'static str>,
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after: {}", self.what, self.trace.join("; "))
    }
}

/// Size of the explored graph.
#[derive(Debug)]
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) steps: usize,
}

/// Explores all states from the initial one.
///
/// `wrong` returns the violation of a single state. A state for which `end` holds has to be reachable from every state, by
/// certain steps alone.
pub(super) fn explore(
    rules: Rules,
    wrong: impl Fn(&World) -> Option<&'static str>,
    end: impl Fn(&World) -> bool,
) -> Result<Explored, Violation> {
    let mut worlds = vec![World::new()];
    let mut known = HashMap::from([(World::new(), 0)]);
    let mut came_from: Vec<(usize, &'static str)> = vec![(0, "")];
    // Predecessors of each state by certain steps.
    let mut back: Vec<Vec<u32>> = vec![Vec::new()];
    let (mut at, mut steps) = (0, 0);
    while at < worlds.len() {
        if let Some(what) = wrong(&worlds[at]) {
            return Err(violation(what, &came_from, at));
        }
        for (name, sure, world) in worlds[at].steps(rules) as Vec<Step> {
            steps += 1;
            let to = *known.entry(world).or_insert_with_key(|world| {
                worlds.push(world.clone());
                came_from.push((at, name));
                back.push(Vec::new());
                worlds.len() - 1
            });
            if sure {
                back[to].push(u32::try_from(at).expect("there are fewer than STATES_MAX"));
            }
        }
        assert!(worlds.len() < STATES_MAX, "the model has too many states");
        at += 1;
    }
    let mut ends = vec![false; worlds.len()];
    let mut open: Vec<usize> = (0..worlds.len()).filter(|at| end(&worlds[*at])).collect();
    open.iter().for_each(|at| ends[*at] = true);
    while let Some(at) = open.pop() {
        for &from in &back[at] {
            let from = from as usize;
            if !std::mem::replace(&mut ends[from], true) {
                open.push(from);
            }
        }
    }
    match ends.iter().position(|ends| !ends) {
        Some(stuck) => Err(violation("stuck", &came_from, stuck)),
        None => Ok(Explored {
            states: worlds.len(),
            steps,
        }),
    }
}

/// Builds the violation with the shortest way there.
fn violation(what: &'static str, came_from: &[(usize, &'static str)], mut at: usize) -> Violation {
    let mut trace = Vec::new();
    while at != 0 {
        let (from, name) = came_from[at];
        trace.push(name);
        at = from;
    }
    trace.reverse();
    Violation { what, trace }
}
