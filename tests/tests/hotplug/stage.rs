//! A domain whose daemon is asked, a guest, and `xenplug` in dom0.

use std::{
    process::{Child, Output, Stdio},
    time::Duration,
};

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Device, TestHost};

/// How long a device may take to come to what a test expects.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked for.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) device: Device,
    /// Its name, for `detach`.
    name: &'static str,
    /// In xl's syntax.
    spec: String,
}

impl Asked {
    /// The same with another description.
    pub(crate) fn saying(mut self, spec: &str) -> Self {
        self.spec = spec.to_owned();
        self
    }

    /// Where it is asked for.
    pub(crate) fn request(&self) -> String {
        let Device {
            backend,
            kind,
            frontend,
            devid,
        } = self.device;
        format!("/hotplug/domain/{backend}/{kind}/{frontend}/{devid}")
    }
}

/// A machine with its daemon, and guest 3.
pub(crate) struct Stage {
    pub(crate) machine: TestHost,
    /// The domain that is asked.
    backend: u16,
}

impl Stage {
    /// The daemon is in a driver domain.
    pub(crate) fn new() -> Result<Self> {
        let mut machine = TestHost::apart()?;
        machine.start_daemon(machine.config()?)?;
        Self::with(machine, 1)
    }

    /// The daemon is in dom0, in the mode for it.
    pub(crate) fn in_dom0() -> Result<Self> {
        let machine = TestHost::dom0()?;
        let done = machine.xenplug(&["prepare", "0"])?.output()?;
        ensure!(done.status.success(), "xenplug prepare: {done:?}");
        Self::with(machine, 0)
    }

    fn with(mut machine: TestHost, backend: u16) -> Result<Self> {
        machine.toolstack().build(3)?;
        Ok(Self { machine, backend })
    }

    /// A disk on a new image.
    pub(crate) fn disk(&self, image: &str) -> Result<Asked> {
        let image = self.machine.image(image, 4)?;
        Ok(Asked {
            device: Device::disk(3, 0).served_by(self.backend),
            name: "xvda",
            spec: format!("format=raw,vdev=xvda,access=rw,target={}", image.display()),
        })
    }

    /// A card on the machine's bridge.
    pub(crate) fn card(&self) -> Asked {
        Asked {
            device: Device::card(3, 0).served_by(self.backend),
            name: "0",
            spec: "mac=00:16:3e:01:02:03,bridge=xenbr0,devid=0".to_owned(),
        }
    }

    /// Begins what `xenplug` is to do with a device.
    pub(crate) fn spawn(&self, what: &str, asked: &Asked, how: &[&str]) -> Result<Child> {
        let class = asked.device.kind.to_string();
        let device = if what == "attach" { &*asked.spec } else { asked.name };
        let backend = self.backend.to_string();
        let mut arguments = vec![what, "--backend", &*backend, "--frontend", "guest-3"];
        arguments.extend([&*class, device]);
        arguments.extend(how);
        let mut command = self.machine.xenplug(&arguments)?;
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Does it, to its end.
    pub(crate) fn run(&self, what: &str, asked: &Asked, how: &[&str]) -> Result<Output> {
        Ok(self.spawn(what, asked, how)?.wait_with_output()?)
    }

    fn done(&self, what: &str, asked: &Asked, how: &[&str]) -> Result<()> {
        let done = self.run(what, asked, how)?;
        ensure!(
            done.status.success(),
            "{what} {}: {}{}",
            asked.request(),
            String::from_utf8_lossy(&done.stderr),
            self.machine.daemon_log()
        );
        Ok(())
    }

    pub(crate) fn attach(&self, asked: &Asked) -> Result<()> {
        self.done("attach", asked, &["--wait", "--timeout", "60s"])
    }

    pub(crate) fn detach(&self, asked: &Asked) -> Result<()> {
        self.done("detach", asked, &["--wait", "--timeout", "60s"])
    }

    /// Does what is to fail with that code, and gives what it said.
    pub(crate) fn fails(&self, what: &str, asked: &Asked, code: i32) -> Result<String> {
        let done = self.run(what, asked, &["--wait", "--timeout", "60s"])?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(
            done.status.code() == Some(code),
            "{what}: {}, {said}{}",
            done.status,
            self.machine.daemon_log()
        );
        Ok(said)
    }

    /// The request's state.
    pub(crate) fn state(&self, asked: &Asked) -> Result<Option<String>> {
        Ok(self.machine.connect()?.find(&format!("{}/state", asked.request()))?)
    }

    /// Waits until the request is in a state.
    pub(crate) fn expect(&self, asked: &Asked, state: &str) -> Result<()> {
        let node = format!("{}/state", asked.request());
        let found = self
            .machine
            .connect()?
            .wait(&node, PATIENCE, |value| value == Some(state))?;
        ensure!(
            found.is_ok(),
            "{node} is {found:?} and not {state}{}",
            self.machine.daemon_log()
        );
        Ok(())
    }
}
