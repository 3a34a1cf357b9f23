//! `xenplug prepare`, `attach` and `detach`: a toolstack's side of the `/hotplug` protocol for operators.

use std::{
    io::{self, Write},
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

use clap::Args;
use serde_json::json;
use xenplug_control::error_chain;
use xenplug_hotplug::{Class, RequestPath};
use xenplug_toolstack::{Error as CallError, Progress, Spec, SpecError, Toolstack, request_path};
use xenplug_xenbus::DomId;
use xenplug_xenstore::Endpoint;

use crate::exit::{USAGE, complain};

/// Long help of `attach`.
pub(crate) const ATTACH: &str = "\
Attaches a disk or a vif of a driver domain to a guest, which may be running.

The driver domain, which may be dom0, has to run xenplugd and to be prepared with `xenplug prepare DOM`. The device is
described as in xl's configuration of a guest:

  vbd  as xl-disk-configuration(5) says, such as vdev=xvdb,target=/srv/a.img,access=rw
  vif  as xl-network-configuration(5) says, such as mac=00:16:3e:01:02:03,bridge=xenbr0

libxl does not know this device: `xl block-list` does not show it and `xl save` does not keep it. It is removed with its
guest or by `xenplug detach`.";

/// Long help of `detach`.
pub(crate) const DETACH: &str = "\
Detaches a device that was attached with `xenplug attach`.

With --wait it returns when the guest has closed the device and nothing is held for it any more: the loop device and the
port of the bridge are gone, and others can use the disk's image at once.";

/// Closing help of both.
pub(crate) const MORE: &str = "\
Waiting:
  --wait shows the progress on standard error and fails after --timeout. After an attach that failed or timed out the driver
  domain releases what it had begun. A detach continues without this command, and when xenplugd is back if it was away.

A domain is named by its id or its name. A name of several domains is refused.

The store is the one that xl uses, or that of XENSTORED_PATH, and has to be dom0's.

Exit codes: 0 done, or requested without --wait; 1 failed, with the driver domain's error on standard error; 2 usage or
configuration; 3 not in time.";

/// Long help of `prepare`.
pub(crate) const PREPARE: &str = "\
Prepares a domain to serve devices of `xenplug attach`.

Creates /hotplug/domain/DOM in xenstore for the requests and lets the domain create backends in
/local/domain/DOM/backend. Run it once for each driver domain after it was built; a repeated run changes nothing.";

/// Exit code of a timeout.
const TIMEOUT: u8 = 3;

/// `xenplug prepare`.
#[derive(Args)]
pub(crate) struct Prepare {
    /// Driver domain, by id or name.
    #[arg(value_name = "DOM")]
    domain: String,
}

/// Both ends of a device.
#[derive(Args)]
struct Domains {
    /// Driver domain, by id or name.
    #[arg(long, value_name = "DOM")]
    backend: String,
    /// Guest, by id or name.
    #[arg(long, value_name = "DOM")]
    frontend: String,
}

/// Options for waiting and output.
#[derive(Args)]
struct Options {
    /// Wait until it is done.
    #[arg(long)]
    wait: bool,
    /// Longest time to wait, such as 30s or 2min.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s", requires = "wait")]
    timeout: Duration,
    /// Print the result as JSON: the device, or the error.
    #[arg(long)]
    json: bool,
}

/// `xenplug attach`.
#[derive(Args)]
pub(crate) struct Attach {
    #[command(flatten)]
    domains: Domains,
    /// Class of the device: vbd for a disk, vif for a network interface.
    #[arg(value_parser = Class::from_str)]
    class: Class,
    /// Device in xl's syntax.
    spec: String,
    #[command(flatten)]
    options: Options,
}

/// `xenplug detach`.
#[derive(Args)]
pub(crate) struct Detach {
    #[command(flatten)]
    domains: Domains,
    /// Class of the device: vbd for a disk, vif for a network interface.
    #[arg(value_parser = Class::from_str)]
    class: Class,
    /// The disk's name in the guest, such as xvdb, or the vif's number.
    #[arg(value_name = "DEV")]
    device: String,
    /// Do not wait for the guest to close the device: it loses the device while in use.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    options: Options,
}

/// Error of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("{0:?} is not a {1} of a guest: expected {2}")]
    Device(String, Class, &'static str),
    #[error("backend: the device names {0}, and --backend {1}")]
    Backend(String, String),
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Error {
    /// Tells whether the operation timed out.
    fn is_timeout(&self) -> bool {
        matches!(self, Self::Call(CallError::Timeout { .. }))
    }

    /// Tells whether the command line is wrong.
    fn is_usage(&self) -> bool {
        !matches!(self, Self::Call(_))
    }
}

impl Prepare {
    pub(crate) async fn run(&self) -> Result<ExitCode, Error> {
        let toolstack = Toolstack::connect(Endpoint::from_env()).await?;
        let domain = toolstack.domain(&self.domain).await?;
        toolstack.prepare(domain).await?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Attach {
    pub(crate) async fn run(&self) -> io::Result<ExitCode> {
        self.options.report(self.attach().await, "attached")
    }

    async fn attach(&self) -> Result<RequestPath, Error> {
        let spec = Spec::parse(self.class, &self.spec)?;
        let toolstack = Toolstack::connect(Endpoint::from_env()).await?;
        let (backend, frontend) = self.domains.resolve(&toolstack).await?;
        if let Some(other) = spec.backend()
            && toolstack.domain(other).await? != backend
        {
            return Err(Error::Backend(other.to_owned(), self.domains.backend.clone()));
        }
        let wait = self.options.wait();
        let progress = self.options.progress();
        Ok(toolstack.attach(backend, frontend, &spec, wait, progress).await?)
    }
}

impl Detach {
    pub(crate) async fn run(&self) -> io::Result<ExitCode> {
        self.options.report(self.detach().await, "detached")
    }

    async fn detach(&self) -> Result<RequestPath, Error> {
        let toolstack = Toolstack::connect(Endpoint::from_env()).await?;
        let (backend, frontend) = self.domains.resolve(&toolstack).await?;
        let path = request_path(backend, frontend, self.class, &self.device).ok_or_else(|| {
            let expected = match self.class {
                Class::Vbd => "a name such as xvda, or a number",
                Class::Vif => "a number",
            };
            Error::Device(self.device.clone(), self.class, expected)
        })?;
        let wait = self.options.wait();
        toolstack
            .detach(path, self.force, wait, self.options.progress())
            .await?;
        Ok(path)
    }
}

impl Domains {
    async fn resolve(&self, toolstack: &Toolstack) -> Result<(DomId, DomId), CallError> {
        Ok((
            toolstack.domain(&self.backend).await?,
            toolstack.domain(&self.frontend).await?,
        ))
    }
}

impl Options {
    fn wait(&self) -> Option<Duration> {
        self.wait.then_some(self.timeout)
    }

    /// Reports progress on standard error while waiting.
    fn progress(&self) -> impl FnMut(RequestPath, Progress) {
        let (wait, mut requested) = (self.wait, false);
        move |path, progress| {
            // There is no progress before the request is written.
            requested |= progress.0.is_some();
            if wait && requested {
                complain(&format!(
                    "{} {} of domain {}: {progress}",
                    path.class, path.devid, path.frontend
                ));
            }
        }
    }

    /// Prints the result and returns the exit code.
    fn report(&self, result: Result<RequestPath, Error>, done: &str) -> io::Result<ExitCode> {
        let (text, answer, code) = match result {
            Ok(path) => {
                let word = if self.wait { done } else { "requested" };
                let answer = json!({
                    "request": path.to_string(),
                    "backend": path.backend.0,
                    "frontend": path.frontend.0,
                    "class": path.class.as_str(),
                    "devid": path.devid.0,
                    "outcome": word,
                });
                (format!("{path} {word}\n"), answer, ExitCode::SUCCESS)
            }
            Err(error) => {
                let text = error_chain(&error);
                complain(&text);
                let code = match &error {
                    error if error.is_timeout() => ExitCode::from(TIMEOUT),
                    error if error.is_usage() => ExitCode::from(USAGE),
                    _ => ExitCode::FAILURE,
                };
                let answer = json!({ "error": text, "timeout": error.is_timeout() });
                (String::new(), answer, code)
            }
        };
        let text = if self.json { format!("{answer}\n") } else { text };
        io::stdout().write_all(text.as_bytes())?;
        Ok(code)
    }
}
