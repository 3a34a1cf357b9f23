//! Helper programs of the simulated host.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{Operation, SimHost, World};
use crate::{
    Error, Process,
    grant::{HookGrant, ProcessGrant},
    process::{Command, HelperProcess, Output, refusal},
};

/// Behaviour of a simulated program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Ends at once.
    Ends(Output),
    /// Runs until it is ended.
    Stays,
}

#[derive(Debug)]
pub(crate) struct SimulatedProcess(pub Arc<SimHost>);

impl Process for SimulatedProcess {
    fn run(
        &self,
        grant: &ProcessGrant,
        helper: &str,
        arguments: &[String],
        _: &str,
        limit: Duration,
    ) -> Result<Output, Error> {
        let mut world = self.0.enter(Operation::Run)?;
        world.run(&grant.command(helper, arguments)?, limit)
    }

    fn run_recorded(&self, grant: &ProcessGrant, command: &Command, _: &str, limit: Duration) -> Result<Output, Error> {
        let mut world = self.0.enter(Operation::RunRecorded)?;
        grant.permit_recorded(command)?;
        world.run(command, limit)
    }

    fn hooks(&self, grant: &HookGrant) -> Result<Vec<PathBuf>, Error> {
        let world = self.0.enter(Operation::Hooks)?;
        let programs = world.programs.keys();
        let is_hook = |path: &&PathBuf| {
            path.parent() == Some(grant.folder()) && path.extension().is_some_and(|extension| extension == "hook")
        };
        Ok(programs.filter(is_hook).cloned().collect())
    }

    fn start(
        &self,
        grant: &ProcessGrant,
        helper: &str,
        arguments: &[String],
        tag: &str,
    ) -> Result<HelperProcess, Error> {
        let mut world = self.0.enter(Operation::Start)?;
        let path = grant.program(helper, arguments)?;
        let stays = *world.programs.get(path).ok_or_else(|| refusal::missing(helper, path))? == Program::Stays;
        world.pid += 1;
        let process = HelperProcess {
            helper: helper.into(),
            pid: world.pid,
            started: world.pid.into(),
            tag: tag.into(),
        };
        if stays {
            world.processes.insert(process.pid, process.clone());
        }
        Ok(process)
    }

    fn running(&self, process: &HelperProcess) -> bool {
        self.0.world().processes.get(&process.pid) == Some(process)
    }

    fn output(&self, _: &HelperProcess) -> Vec<u8> {
        Vec::new()
    }

    fn end(&self, process: &HelperProcess, _: Duration) -> Result<(), Error> {
        let mut world = self.0.enter(Operation::End)?;
        if world.processes.get(&process.pid) == Some(process) {
            world.processes.remove(&process.pid);
        }
        Ok(())
    }

    fn find(&self, tag: &str) -> Result<Vec<HelperProcess>, Error> {
        let world = self.0.enter(Operation::Find)?;
        Ok(world
            .processes
            .values()
            .filter(|process| process.tag == tag)
            .cloned()
            .collect())
    }
}

impl World {
    fn run(&mut self, command: &Command, limit: Duration) -> Result<Output, Error> {
        let outcome = match self.programs.get(&command.program) {
            Some(Program::Ends(output)) => Ok(output.clone()),
            Some(Program::Stays) => Err(refusal::out_of_time(&command.helper, limit)),
            None => return Err(refusal::missing(&command.helper, &command.program)),
        };
        self.runs.push(command.to_string());
        outcome
    }
}
