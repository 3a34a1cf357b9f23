//! Tests of the calls on the in-memory store, with a driver domain that has the permissions of a real one.

mod delayed_request;
mod driver_domain;

use std::time::Duration;

use delayed_request::delay_request;
use driver_domain::{DriverDomain, Faults};
use tokio::task::LocalSet;
use xenplug_hotplug::{Class, RequestPath, State};
use xenplug_store_server as server;
use xenplug_xenbus::DomId;
use xenplug_xenstore::{Client, Endpoint, Path, Permission};

use crate::{Error, Progress, Spec, Toolstack, request_path};

const D: DomId = DomId(1);
const G: DomId = DomId(3);

const WAIT: Option<Duration> = Some(Duration::from_secs(10));

/// Store with dom0, a prepared driver domain and a guest.
struct Bench {
    _server: server::Server,
    directory: tempfile::TempDir,
    dom0: Client,
    toolstack: Toolstack,
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = |name: &str| directory.path().join(name);
        let mut server = server::Server::bind(socket("0"), server::Options::default()).unwrap();
        for domain in [D, G] {
            server.listen_as(socket(&domain.to_string()), domain.0).unwrap();
        }
        let dom0 = Client::connect(Endpoint::Socket(socket("0"))).await.unwrap();
        let bench = Self {
            toolstack: Toolstack::new(dom0.clone()),
            _server: server,
            directory,
            dom0,
        };
        bench.domain(D, "storage", "d").await;
        bench.domain(G, "web", "g").await;
        bench.toolstack.prepare(D).await.unwrap();
        bench
    }

    /// Creates a domain as libxl does (libxl_create.c, `libxl__domain_make`).
    async fn domain(&self, domain: DomId, name: &str, vm: &str) {
        let home = Path::home(domain.0);
        let _ = self.dom0.rm(&home).await;
        self.dom0.write(&home, "").await.unwrap();
        let own = [Permission::none(0), Permission::read(domain.0)];
        self.dom0.set_permissions(&home, &own).await.unwrap();
        for (node, value) in [
            ("vm", format!("/vm/{vm}")),
            ("name", name.to_owned()),
            ("device", String::new()),
        ] {
            self.dom0.write(&home.join(node).unwrap(), value).await.unwrap();
        }
    }

    async fn client(&self, domain: DomId) -> Client {
        let socket = self.directory.path().join(domain.to_string());
        Client::connect(Endpoint::Socket(socket)).await.unwrap()
    }

    async fn driver_domain(&self, faults: Faults) -> DriverDomain {
        DriverDomain::start(self.client(D).await, self.client(G).await, faults)
    }

    async fn attach(&self, class: Class, spec: &str) -> Result<(RequestPath, Vec<Progress>), Error> {
        let spec = Spec::parse(class, spec).unwrap();
        let mut steps = Vec::new();
        let path = self
            .toolstack
            .attach(D, G, &spec, WAIT, |_, progress| steps.push(progress))
            .await?;
        Ok((path, steps))
    }

    async fn detach(&self, path: RequestPath, force: bool) -> Result<(), Error> {
        self.toolstack.detach(path, force, WAIT, |_, _| {}).await
    }

    async fn read(&self, path: &str) -> Option<String> {
        let value = self.dom0.read(&path.parse().unwrap()).await.ok()?;
        Some(String::from_utf8(value).unwrap())
    }

    /// Tells whether the store has no node of the device.
    async fn is_clean(&self, path: RequestPath) -> bool {
        let guest = format!("/hotplug/domain/{D}/{}/{G}", path.class);
        self.read(&guest).await.is_none()
            && self.read(&path.frontend_path()).await.is_none()
            && self
                .read(&format!("/local/domain/{D}/backend/vbd/{G}/{}", path.devid))
                .await
                .is_none()
    }
}

fn disk() -> RequestPath {
    request_path(D, G, Class::Vbd, "xvda").unwrap()
}

/// Runs a test whose tasks are not `Send`.
async fn locally<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

#[tokio::test]
async fn detach_returns_once_nothing_is_held() {
    locally(async {
        let bench = Bench::new().await;
        let domain = bench.driver_domain(Faults::default()).await;
        for _ in 0..10 {
            let (path, steps) = bench.attach(Class::Vbd, "/srv/a.img,raw,xvda").await.unwrap();
            assert_eq!(path, disk());
            assert_eq!(steps.first(), Some(&Progress(None)));
            assert!(domain.holds());
            let back = format!("/local/domain/{D}/backend/vbd/{G}/51712");
            assert_eq!(
                bench.read(&format!("{back}/params")).await.as_deref(),
                Some("/srv/a.img")
            );
            bench.detach(path, false).await.unwrap();
            assert!(!domain.holds(), "cleanup still runs");
            assert!(bench.is_clean(path).await);
        }
    })
    .await;
}

#[tokio::test]
async fn vif_without_devid_gets_the_next_free_one() {
    locally(async {
        let bench = Bench::new().await;
        let _domain = bench.driver_domain(Faults::default()).await;
        for number in ["0", "1"] {
            let (path, _) = bench.attach(Class::Vif, "bridge=xenbr0").await.unwrap();
            assert_eq!(path.devid.to_string(), number);
            let handle = bench.read(&format!("{}/handle", path.frontend_path())).await;
            assert_eq!(handle.as_deref(), Some(number));
        }
    })
    .await;
}

#[tokio::test]
async fn failed_attach_returns_the_error_and_leaves_nothing() {
    locally(async {
        let bench = Bench::new().await;
        let faults = Faults {
            fails: Some("phy: params: /srv/a.img: no such file"),
            ..Faults::default()
        };
        let domain = bench.driver_domain(faults).await;
        let error = bench.attach(Class::Vbd, "/srv/a.img,raw,xvda").await.unwrap_err();
        assert_eq!(error.to_string(), "phy: params: /srv/a.img: no such file");
        assert!(bench.is_clean(disk()).await && !domain.holds());
    })
    .await;
}

#[tokio::test]
async fn stubborn_guest_times_out_unless_forced() {
    locally(async {
        let bench = Bench::new().await;
        let faults = Faults {
            stubborn: true,
            ..Faults::default()
        };
        let domain = bench.driver_domain(faults).await;
        let (path, _) = bench.attach(Class::Vbd, "/srv/a.img,raw,xvda").await.unwrap();
        let short = Some(Duration::from_millis(300));
        let error = bench.toolstack.detach(path, false, short, |_, _| {}).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Timeout {
                    state: Progress(Some(State::Detaching)),
                    ..
                }
            ),
            "{error}"
        );
        assert!(domain.holds());
        bench.detach(path, true).await.unwrap();
        assert!(bench.is_clean(path).await && !domain.holds());
    })
    .await;
}

#[tokio::test]
async fn unaccepted_request_is_removed() {
    locally(async {
        let bench = Bench::new().await;
        let spec = Spec::parse(Class::Vbd, "/srv/a.img,raw,xvda").unwrap();
        let short = Some(Duration::from_millis(100));
        let error = bench.toolstack.attach(D, G, &spec, short, |_, _| {}).await.unwrap_err();
        assert!(error.to_string().contains("has not accepted it"), "{error}");
        assert!(bench.is_clean(disk()).await);
    })
    .await;
}

#[tokio::test]
async fn restarted_daemon_finishes_a_detach() {
    locally(async {
        let bench = Bench::new().await;
        let domain = bench.driver_domain(Faults::default()).await;
        let (path, _) = bench.attach(Class::Vbd, "/srv/a.img,raw,xvda").await.unwrap();
        let journal = domain.kill();
        let short = Some(Duration::from_millis(100));
        assert!(bench.toolstack.detach(path, false, short, |_, _| {}).await.is_err());
        let domain = DriverDomain::restart(bench.client(D).await, bench.client(G).await, journal);
        bench.detach(path, false).await.unwrap();
        assert!(bench.is_clean(path).await && !domain.holds());
    })
    .await;
}

#[tokio::test]
async fn second_attach_with_same_devid_fails() {
    locally(async {
        let bench = Bench::new().await;
        let _domain = bench.driver_domain(Faults::default()).await;
        let (path, _) = bench.attach(Class::Vbd, "/srv/a.img,raw,xvda").await.unwrap();
        let error = bench.attach(Class::Vbd, "/srv/b.img,raw,xvda").await.unwrap_err();
        assert!(matches!(error, Error::Exists(there) if there == path), "{error}");
        // A device of libxl is left alone.
        let theirs = format!("/local/domain/{G}/device/vbd/51728/state");
        bench.dom0.write(&theirs.parse().unwrap(), "4").await.unwrap();
        let error = bench.attach(Class::Vbd, "/srv/b.img,raw,xvdb").await.unwrap_err();
        assert!(matches!(error, Error::Foreign(_)), "{error}");
        assert_eq!(bench.read(&theirs).await.as_deref(), Some("4"));
    })
    .await;
}

#[tokio::test]
async fn concurrent_attach_succeeds_for_exactly_one_toolstack() {
    locally(async {
        let spec = &Spec::parse(Class::Vbd, "/srv/a.img,raw,xvda").unwrap();
        let ask = async |toolstack: Toolstack| toolstack.attach(D, G, spec, None, |_, _| {}).await;
        let mut met = 0;
        loop {
            let bench = Bench::new().await;
            let socket = bench.directory.path().join("held up");
            let delayed = delay_request(&socket, &bench.directory.path().join("0"), met + 1);
            let late = ask(Toolstack::connect(Endpoint::Socket(socket)).await.unwrap());
            let mut late = std::pin::pin!(late);
            let ends = tokio::select! {
                _ = delayed.reached => {
                    let other = ask(bench.toolstack.clone()).await;
                    delayed.go_on.send(()).unwrap();
                    [other, late.await]
                }
                // The toolstack has sent fewer requests.
                end = &mut late => break assert!(end.is_ok(), "{end:?}"),
            };
            let [one, two] = ends.map(|end| end.map_err(|error| error.to_string()));
            let there = Err(Error::Exists(disk()).to_string());
            assert!(
                (one == Ok(disk()) && two == there) || (one == there && two == Ok(disk())),
                "before request {}: {one:?}, {two:?}",
                met + 1
            );
            met += 1;
        }
        assert!(met > 20, "they met {met} times");
    })
    .await;
}

#[tokio::test]
async fn guest_with_reused_domid_is_another() {
    locally(async {
        let bench = Bench::new().await;
        let domain = bench.driver_domain(Faults::default()).await;
        bench.attach(Class::Vbd, "/srv/a.img,raw,xvda").await.unwrap();
        bench.domain(G, "mail", "h").await;
        let (path, _) = bench.attach(Class::Vbd, "/srv/b.img,raw,xvda").await.unwrap();
        assert_eq!(bench.read(&path.node("vm")).await.as_deref(), Some("/vm/h"));
        assert_eq!(bench.read(&path.node("params")).await.as_deref(), Some("/srv/b.img"));
        assert!(domain.holds());
    })
    .await;
}

#[tokio::test]
async fn driver_domain_can_write_only_state_and_error() {
    locally(async {
        let bench = Bench::new().await;
        let spec = Spec::parse(Class::Vbd, "/srv/a.img,raw,xvda").unwrap();
        let path = bench.toolstack.attach(D, G, &spec, None, |_, _| {}).await.unwrap();
        let theirs = bench.client(D).await;
        for (node, may) in [
            (path.node("state"), true),
            (path.node("error"), true),
            (path.node("params"), false),
            (path.node("id"), false),
            (path.node("more"), false),
            (format!("/hotplug/domain/{D}/daemon"), true),
            (format!("/hotplug/domain/{D}/vm"), false),
            (format!("{}/state", path.frontend_path()), true),
            (format!("/local/domain/{G}/device/vbd/51728/state"), false),
            (format!("/local/domain/{G}/device/vif/0/state"), false),
            (format!("/local/domain/{G}/name"), false),
            (format!("/local/domain/{D}/backend/vbd/{G}/51712/state"), true),
        ] {
            let written = theirs.write(&node.parse().unwrap(), "1").await;
            assert_eq!(written.is_ok(), may, "{node}: {written:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn missing_domain_is_named_in_the_error() {
    locally(async {
        let bench = Bench::new().await;
        assert_eq!(bench.toolstack.domain("storage").await.unwrap(), D);
        assert_eq!(bench.toolstack.domain("3").await.unwrap(), G);
        assert!(matches!(
            bench.toolstack.domain("nobody").await,
            Err(Error::NoDomain(_))
        ));
        assert!(matches!(
            bench.toolstack.prepare(DomId(9)).await,
            Err(Error::NoGuest(DomId(9)))
        ));
        assert!(matches!(bench.detach(disk(), false).await, Err(Error::NoDevice(_))));
        // A recreated driver domain has to be prepared again, and then has none of the earlier requests.
        let _domain = bench.driver_domain(Faults::default()).await;
        bench.attach(Class::Vbd, "/srv/a.img,raw,xvda").await.unwrap();
        bench.domain(D, "storage", "e").await;
        let error = bench.attach(Class::Vbd, "/srv/a.img,raw,xvdb").await.unwrap_err();
        assert!(matches!(error, Error::NoDriverDomain(D)), "{error}");
        bench.detach(disk(), false).await.unwrap();
        assert!(bench.is_clean(disk()).await);
    })
    .await;
}
