//! Fixture: a backend domain with its daemon, a guest, and `xenplug` in dom0.

use std::{
    process::{Child, Output, Stdio},
    time::Duration,
};

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Device, TestHost};

/// Time that a device may take to reach the expected state.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Requested device.
#[derive(Clone)]
pub(crate) struct Requested {
    pub(crate) device: Device,
    /// Name for `detach`, such as `xvda`.
    name: &'static str,
    /// Specification in xl's syntax.
    spec: String,
}

impl Requested {
    /// Replaces the specification.
    pub(crate) fn with_spec(mut self, spec: &str) -> Self {
        self.spec = spec.to_owned();
        self
    }

    /// Returns the path of its request.
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

/// Host with its daemon and guest 3.
pub(crate) struct Fixture {
    pub(crate) host: TestHost,
    /// Domain that serves the requests.
    backend: u16,
}

impl Fixture {
    /// Starts the daemon in a driver domain.
    pub(crate) fn new() -> Result<Self> {
        let mut host = TestHost::apart()?;
        host.start_daemon(host.config()?)?;
        Self::with(host, 1)
    }

    /// Starts the daemon in dom0, in dom0 mode.
    pub(crate) fn in_dom0() -> Result<Self> {
        let host = TestHost::dom0()?;
        let done = host.xenplug(&["prepare", "0"])?.output()?;
        ensure!(done.status.success(), "xenplug prepare: {done:?}");
        Self::with(host, 0)
    }

    fn with(mut host: TestHost, backend: u16) -> Result<Self> {
        host.toolstack().build(3)?;
        Ok(Self { host, backend })
    }

    /// Describes a disk on a new image.
    pub(crate) fn disk(&self, image: &str) -> Result<Requested> {
        let image = self.host.image(image, 4)?;
        Ok(Requested {
            device: Device::disk(3, 0).served_by(self.backend),
            name: "xvda",
            spec: format!("format=raw,vdev=xvda,access=rw,target={}", image.display()),
        })
    }

    /// Describes a vif on the host's bridge.
    pub(crate) fn vif(&self) -> Requested {
        Requested {
            device: Device::vif(3, 0).served_by(self.backend),
            name: "0",
            spec: "mac=00:16:3e:01:02:03,bridge=xenbr0,devid=0".to_owned(),
        }
    }

    /// Starts `xenplug attach` or `detach`.
    pub(crate) fn spawn(&self, what: &str, requested: &Requested, how: &[&str]) -> Result<Child> {
        let class = requested.device.kind.to_string();
        let device = if what == "attach" {
            &*requested.spec
        } else {
            requested.name
        };
        let backend = self.backend.to_string();
        let mut arguments = vec![what, "--backend", &*backend, "--frontend", "guest-3"];
        arguments.extend([&*class, device]);
        arguments.extend(how);
        let mut command = self.host.xenplug(&arguments)?;
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Runs `xenplug attach` or `detach` to its end.
    pub(crate) fn run(&self, what: &str, requested: &Requested, how: &[&str]) -> Result<Output> {
        Ok(self.spawn(what, requested, how)?.wait_with_output()?)
    }

    fn done(&self, what: &str, requested: &Requested, how: &[&str]) -> Result<()> {
        let done = self.run(what, requested, how)?;
        ensure!(
            done.status.success(),
            "{what} {}: {}{}",
            requested.request(),
            String::from_utf8_lossy(&done.stderr),
            self.host.daemon_log()
        );
        Ok(())
    }

    pub(crate) fn attach(&self, requested: &Requested) -> Result<()> {
        self.done("attach", requested, &["--wait", "--timeout", "60s"])
    }

    pub(crate) fn detach(&self, requested: &Requested) -> Result<()> {
        self.done("detach", requested, &["--wait", "--timeout", "60s"])
    }

    /// Runs a command that has to fail with this code, and returns its error output.
    pub(crate) fn fails(&self, what: &str, requested: &Requested, code: i32) -> Result<String> {
        let done = self.run(what, requested, &["--wait", "--timeout", "60s"])?;
        let message = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(
            done.status.code() == Some(code),
            "{what}: {}, {message}{}",
            done.status,
            self.host.daemon_log()
        );
        Ok(message)
    }

    /// Reads the request's state.
    pub(crate) fn state(&self, requested: &Requested) -> Result<Option<String>> {
        Ok(self.host.connect()?.find(&format!("{}/state", requested.request()))?)
    }

    /// Waits until the request is in a state.
    pub(crate) fn expect(&self, requested: &Requested, state: &str) -> Result<()> {
        let node = format!("{}/state", requested.request());
        let found = self
            .host
            .connect()?
            .wait(&node, TIMEOUT, |value| value == Some(state))?;
        ensure!(
            found.is_ok(),
            "{node} is {found:?} and not {state}{}",
            self.host.daemon_log()
        );
        Ok(())
    }
}
