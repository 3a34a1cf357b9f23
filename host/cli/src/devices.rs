//! `xenplug prepare`, `attach` and `detach`: a toolstack's side of the `/hotplug` protocol, for an operator.

use std::{
    io::{self, Write},
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

use clap::Args;
use serde_json::json;
use xenplug_hotplug::{Class, RequestPath};
use xenplug_toolstack::{Error as CallError, Progress, Spec, SpecError, Toolstack, request_path};
use xenplug_xenbus::DomId;
use xenplug_xenstore::Endpoint;

use crate::complain;

/// What `attach` is for.
pub(crate) const ATTACH: &str = "\
Asks a driver domain for a disk or a network card of a guest, which may be running.

The driver domain, which may be dom0, has to run xenplugd, and to be prepared: `xenplug prepare DOM`. The device is described as in xl's
configuration of a guest:

  vbd  as xl-disk-configuration(5) says, such as vdev=xvdb,target=/srv/a.img,access=rw
  vif  as xl-network-configuration(5) says, such as mac=00:16:3e:01:02:03,bridge=xenbr0

libxl does not know of such a device: `xl block-list` does not show it, and `xl save` does not keep it. It goes with its
guest, or with `xenplug detach`.";

/// What `detach` is for.
pub(crate) const DETACH: &str = "\
Asks a driver domain to give a device back that was attached with `xenplug attach`.

With --wait it returns when nothing is held for the device any more: the guest has let go, the loop device and the port of
the bridge are gone, and what the disk was on can be used by others at once.";

/// What there is to know of both besides.
pub(crate) const MORE: &str = "\
Waiting:
  --wait shows on standard error how far the device is, and fails after --timeout. An attach that failed, or took too long,
  leaves nothing: the driver domain takes down what it had begun. A detach goes on without us. If the driver domain's
  xenplugd is away, it goes on when it is back.

Domains are named by number or by name. A name that several domains have is refused.

The store is found where xl finds it, by XENSTORED_PATH if that is set, and has to be dom0's.

Exit codes: 0 done, or asked for without --wait; 1 failed: the driver domain's own words are on standard error; 2 the
command line; 3 not within the time.";

/// What `prepare` is for.
pub(crate) const PREPARE: &str = "\
Lets a domain serve devices that `xenplug attach` asks it for.

Makes /hotplug/domain/DOM in xenstore, where the requests go, and lets the domain make backends in
/local/domain/DOM/backend. To be run once for each driver domain, after it was built; doing it again changes nothing.";

/// Exit code: not within the time.
const TIMEOUT: u8 = 3;

/// `xenplug prepare`.
#[derive(Args)]
pub(crate) struct Prepare {
    /// The driver domain: a number, or a name.
    #[arg(value_name = "DOM")]
    domain: String,
}

/// Which domains a device is between.
#[derive(Args)]
struct Between {
    /// The driver domain: a number, or a name.
    #[arg(long, value_name = "DOM")]
    backend: String,
    /// The guest: a number, or a name.
    #[arg(long, value_name = "DOM")]
    frontend: String,
}

/// How to wait, and how to tell.
#[derive(Args)]
struct Manner {
    /// Wait until it is done.
    #[arg(long)]
    wait: bool,
    /// For how long to wait, such as 30s or 2min.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s", requires = "wait")]
    timeout: Duration,
    /// Say how it ended as JSON, on standard output: device, or error.
    #[arg(long)]
    json: bool,
}

/// `xenplug attach`.
#[derive(Args)]
pub(crate) struct Attach {
    #[command(flatten)]
    between: Between,
    /// What it is to the guest: vbd for a disk, vif for a network card.
    #[arg(value_parser = Class::from_str)]
    class: Class,
    /// The device, in xl's syntax.
    spec: String,
    #[command(flatten)]
    manner: Manner,
}

/// `xenplug detach`.
#[derive(Args)]
pub(crate) struct Detach {
    #[command(flatten)]
    between: Between,
    /// What it is to the guest: vbd for a disk, vif for a network card.
    #[arg(value_parser = Class::from_str)]
    class: Class,
    /// The disk's name in the guest, such as xvdb, or the card's number.
    #[arg(value_name = "DEV")]
    device: String,
    /// Do not wait for the guest to let go: it loses the device under its hands.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    manner: Manner,
}

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("{0:?} is not a {1} of a guest: expected {2}")]
    Device(String, Class, &'static str),
    #[error("backend: the device's own says {0}, and --backend {1}")]
    Backend(String, String),
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Error {
    /// Whether time ran out.
    fn is_timeout(&self) -> bool {
        matches!(self, Self::Call(CallError::Timeout { .. }))
    }

    /// Whether the command line is to blame.
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
        self.manner.tell(self.attach().await, "attached")
    }

    async fn attach(&self) -> Result<RequestPath, Error> {
        let spec = Spec::parse(self.class, &self.spec)?;
        let toolstack = Toolstack::connect(Endpoint::from_env()).await?;
        let (backend, frontend) = self.between.domains(&toolstack).await?;
        if let Some(other) = spec.backend()
            && toolstack.domain(other).await? != backend
        {
            return Err(Error::Backend(other.to_owned(), self.between.backend.clone()));
        }
        let wait = self.manner.wait();
        let progress = self.manner.progress();
        Ok(toolstack.attach(backend, frontend, &spec, wait, progress).await?)
    }
}

impl Detach {
    pub(crate) async fn run(&self) -> io::Result<ExitCode> {
        self.manner.tell(self.detach().await, "detached")
    }

    async fn detach(&self) -> Result<RequestPath, Error> {
        let toolstack = Toolstack::connect(Endpoint::from_env()).await?;
        let (backend, frontend) = self.between.domains(&toolstack).await?;
        let path = request_path(backend, frontend, self.class, &self.device).ok_or_else(|| {
            let expected = match self.class {
                Class::Vbd => "a name such as xvda, or a number",
                Class::Vif => "a number",
            };
            Error::Device(self.device.clone(), self.class, expected)
        })?;
        let wait = self.manner.wait();
        toolstack.detach(path, self.force, wait, self.manner.progress()).await?;
        Ok(path)
    }
}

impl Between {
    async fn domains(&self, toolstack: &Toolstack) -> Result<(DomId, DomId), CallError> {
        Ok((
            toolstack.domain(&self.backend).await?,
            toolstack.domain(&self.frontend).await?,
        ))
    }
}

impl Manner {
    fn wait(&self) -> Option<Duration> {
        self.wait.then_some(self.timeout)
    }

    /// Says on standard error how far the device is, to who waits.
    fn progress(&self) -> impl FnMut(RequestPath, Progress) {
        let (wait, mut asked) = (self.wait, false);
        move |path, progress| {
            // Before it is asked for there is nothing to tell.
            asked |= progress.0.is_some();
            if wait && asked {
                complain(&format!(
                    "{} {} of domain {}: {progress}",
                    path.class, path.devid, path.frontend
                ));
            }
        }
    }

    /// Tells how it ended, and what that is as an exit code.
    fn tell(&self, end: Result<RequestPath, Error>, done: &str) -> io::Result<ExitCode> {
        let (text, answer, code) = match end {
            Ok(path) => {
                let word = if self.wait { done } else { "asked for" };
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
                complain(&error.to_string());
                let code = match &error {
                    error if error.is_timeout() => ExitCode::from(TIMEOUT),
                    error if error.is_usage() => ExitCode::from(2),
                    _ => ExitCode::FAILURE,
                };
                let answer = json!({ "error": error.to_string(), "timeout": error.is_timeout() });
                (String::new(), answer, code)
            }
        };
        let text = if self.json { format!("{answer}\n") } else { text };
        io::stdout().write_all(text.as_bytes())?;
        Ok(code)
    }
}
