//! The demo: two tenants on one machine, each with a Kubernetes of its own. Every Kubernetes step is the unmodified
//! kubectl.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{command, packages};

const IMAGE: &str = "mangrove.test/web:1";
const TENANTS: [&str; 2] = ["acme", "globex"];
const READY_TIMEOUT: &str = "--timeout=60s";

struct Options {
    keep: bool,
    etcd_servers: Option<String>,
}

pub fn run(arguments: &[String]) -> Result<(), String> {
    let options = parse(arguments)?;
    if !packages::is_root()? {
        packages::install(&[packages::BUILD, packages::DEMO])?;
        return Err("the demo starts real containers and needs root: run it by sudo or as root".to_owned());
    }
    packages::install(&[packages::BUILD, packages::DEMO])?;
    let mut demo = Demo::new(options)?;
    let played = demo.play();
    if let Err(error) = &played {
        println!("\nThe demo failed: {error}");
        demo.show_log();
    }
    let done = demo.finish(played.is_ok());
    demo.print_times();
    played.and(done)
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        keep: false,
        etcd_servers: None,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--keep" => options.keep = true,
            "--etcd-servers" => {
                options.etcd_servers = Some(
                    arguments
                        .next()
                        .ok_or("--etcd-servers needs a URL, such as http://127.0.0.1:2379")?
                        .clone(),
                );
            }
            other => return Err(format!("demo takes --keep and --etcd-servers URL, not {other:?}")),
        }
    }
    Ok(options)
}

struct Demo {
    options: Options,
    mangrove: PathBuf,
    data_dir: PathBuf,
    manifest: PathBuf,
    times: Vec<(String, Duration)>,
    started: bool,
}

impl Demo {
    fn new(options: Options) -> Result<Demo, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .ok_or("xtask has no parent folder")?
            .to_owned();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(Demo {
            options,
            mangrove: target.join("release/mangrove"),
            data_dir: target.join("demo"),
            manifest: root.join("examples/web.yaml"),
            times: Vec::new(),
            started: false,
        })
    }

    fn play(&mut self) -> Result<(), String> {
        self.step("build the release binary", |_| {
            command::run(Command::new("cargo").args([
                "build",
                "--release",
                "--locked",
                "--quiet",
                "--package",
                "mangrove",
            ]))
        })?;
        if self.data_dir.exists() {
            return Err(format!(
                "{} is left from a demo before: end it by `{} down --data-dir {0}` and remove the folder",
                self.data_dir.display(),
                self.mangrove.display()
            ));
        }
        std::fs::create_dir_all(&self.data_dir).map_err(|error| format!("{}: {error}", self.data_dir.display()))?;
        self.started = true;
        self.step("mangrove up", |demo| {
            let mut up = demo.mangrove(&["up", "--listen", "127.0.0.1:0", "--detach"]);
            up.arg("--kubeconfig").arg(demo.kubeconfig("super"));
            if let Some(url) = &demo.options.etcd_servers {
                up.args(["--etcd-servers", url]);
            }
            command::run(&mut up)
        })?;
        self.step("make and import a container image", |demo| {
            let archive = demo.data_dir.join("web.tar");
            let image = testkit::image::ImageBuilder::busybox(IMAGE).and_then(|image| image.build());
            let written = image.and_then(|image| image.write_docker_archive(&archive));
            written.map_err(|error| format!("making the image: {error}"))?;
            let mut import = demo.mangrove(&["image", "import"]);
            command::output(import.arg(&archive)).map(drop)?;
            std::fs::remove_file(&archive).map_err(|error| format!("{}: {error}", archive.display()))
        })?;
        for tenant in TENANTS {
            self.step(&format!("tenant create {tenant}"), |demo| {
                let mut create = demo.mangrove(&["tenant", "create", tenant]);
                command::output(create.arg("--kubeconfig").arg(demo.kubeconfig(tenant))).map(drop)
            })?;
        }
        for tenant in TENANTS {
            self.step(&format!("{tenant}: kubectl apply"), |demo| {
                let mut apply = demo.kubectl(tenant, &["apply", "-f"]);
                command::run(apply.arg(&demo.manifest))
            })?;
        }
        for tenant in TENANTS {
            self.step(&format!("{tenant}: 3 Pods Ready"), |demo| {
                command::output(&mut demo.kubectl(tenant, &["rollout", "status", "deployment/web", READY_TIMEOUT]))?;
                let ready = ["wait", "--for=condition=Ready", "pod", "-l", "app=web", READY_TIMEOUT];
                command::run(&mut demo.kubectl(tenant, &ready))
            })?;
        }
        for tenant in TENANTS {
            self.step(&format!("{tenant}: fetch the page through the Service"), |demo| {
                demo.fetch(tenant)
            })?;
            self.step(&format!("{tenant}: follow logs"), |demo| demo.follow_logs(tenant))?;
            self.step(&format!("{tenant}: exec"), |demo| {
                let words = "echo \"user $(id -u) on $(hostname), password $PASSWORD\"";
                command::run(&mut demo.kubectl(tenant, &["exec", "deployment/web", "--", "/bin/sh", "-c", words]))
            })?;
        }
        self.step("both sides of the sync", Demo::show_both_sides)?;
        self.step("acme is refused at globex", Demo::acme_at_globex)
    }

    /// From inside a Pod, by the Service's name; from the machine, by its address.
    fn fetch(&self, tenant: &str) -> Result<(), String> {
        let inside = [
            "exec",
            "deployment/web",
            "--",
            "wget",
            "-q",
            "-O",
            "-",
            "http://web/index.html",
        ];
        let page = command::output(&mut self.kubectl(tenant, &inside))?;
        print!("by name from a Pod:        {page}");
        let address = ["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"];
        let address = command::output(&mut self.kubectl(tenant, &address))?;
        let url = format!("http://{address}/index.html");
        let page = command::output(Command::new("busybox").args(["wget", "-q", "-O", "-", &url]))?;
        print!("by {address} from here: {page}");
        if page.contains("Served from a Pod") {
            Ok(())
        } else {
            Err(format!("{url} is not the page: {page}"))
        }
    }

    /// Follows the log of all Pods until a line of a request made meanwhile has come by.
    fn follow_logs(&self, tenant: &str) -> Result<(), String> {
        let mut follow = self.kubectl(tenant, &["logs", "-f", "--prefix", "-l", "app=web", "--tail=1"]);
        let mut child = follow
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("can't start kubectl: {error}"))?;
        let seen = wait_for_line(&mut child, |line| {
            line.contains("serves on") || line.contains("response:")
        });
        let _ = child.kill();
        let _ = child.wait();
        println!("{}", seen?);
        Ok(())
    }

    fn show_both_sides(&self) -> Result<(), String> {
        for tenant in TENANTS {
            println!("-- {tenant} sees:");
            command::run(&mut self.kubectl(tenant, &["get", "pods", "-o", "wide"]))?;
        }
        println!("-- the super cluster runs:");
        command::run(&mut self.kubectl("super", &["get", "pods", "--all-namespaces", "-o", "wide"]))?;
        let pods = self.get("super", &["get", "pods", "--all-namespaces", "-o", "json"])?;
        let pods = pods["items"].as_array().map_or(0, Vec::len);
        if pods == 3 * TENANTS.len() {
            Ok(())
        } else {
            Err(format!("the super cluster has {pods} Pods, not 6"))
        }
    }

    fn acme_at_globex(&self) -> Result<(), String> {
        let globex = self.get("globex", &["config", "view", "--minify", "--raw", "-o", "json"])?;
        let server = globex["clusters"][0]["cluster"]["server"]
            .as_str()
            .ok_or("globex's kubeconfig names no server")?;
        let words = command::refused(&mut self.kubectl("acme", &["--server", server, "get", "pods"]))?;
        println!("{words}");
        if words.contains("Unauthorized") || words.contains("provide credentials") {
            Ok(())
        } else {
            Err(format!("acme was refused for another reason: {words}"))
        }
    }

    fn get(&self, whose: &str, arguments: &[&str]) -> Result<Value, String> {
        let text = command::output(&mut self.kubectl(whose, arguments))?;
        serde_json::from_str(&text).map_err(|error| format!("kubectl printed no JSON: {error}"))
    }

    fn finish(&mut self, played: bool) -> Result<(), String> {
        if !self.started {
            return Ok(());
        }
        if self.options.keep && played {
            self.print_next_commands();
            return Ok(());
        }
        self.step("mangrove down", |demo| command::run(&mut demo.mangrove(&["down"])))?;
        std::fs::remove_dir_all(&self.data_dir).map_err(|error| format!("{}: {error}", self.data_dir.display()))
    }

    fn show_log(&self) {
        let log = self.data_dir.join("mangrove.log");
        if let Ok(text) = std::fs::read_to_string(&log) {
            let lines: Vec<&str> = text.lines().collect();
            println!("The end of {}:", log.display());
            lines
                .iter()
                .skip(lines.len().saturating_sub(40))
                .for_each(|line| println!("  {line}"));
        }
    }

    fn print_next_commands(&self) {
        println!("\nIt runs on. Next:");
        println!("  kubectl --kubeconfig {} get all", self.kubeconfig("acme").display());
        println!(
            "  kubectl --kubeconfig {} scale deployment/web --replicas=5",
            self.kubeconfig("globex").display()
        );
        println!(
            "  kubectl --kubeconfig {} get pods,services --all-namespaces",
            self.kubeconfig("super").display()
        );
        println!(
            "  {} tenant list --data-dir {}",
            self.mangrove.display(),
            self.data_dir.display()
        );
        println!(
            "  {} down --data-dir {}",
            self.mangrove.display(),
            self.data_dir.display()
        );
    }

    fn print_times(&self) {
        println!("\n{:<48} {:>9}", "step", "ms");
        for (name, time) in &self.times {
            println!("{name:<48} {:>9.0}", time.as_secs_f64() * 1000.0);
        }
    }

    fn step(&mut self, name: &str, work: impl FnOnce(&Demo) -> Result<(), String>) -> Result<(), String> {
        println!("\n==> {name}");
        let start = Instant::now();
        let done = work(self);
        self.times.push((name.to_owned(), start.elapsed()));
        done.map_err(|error| format!("{name}: {error}"))
    }

    fn mangrove(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.mangrove);
        command.args(arguments).arg("--data-dir").arg(&self.data_dir);
        command
    }

    fn kubeconfig(&self, whose: &str) -> PathBuf {
        self.data_dir.join(format!("{whose}.kubeconfig"))
    }

    fn kubectl(&self, whose: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        // Caches of discovery belong to the demo and leave with it.
        command.arg("--cache-dir").arg(self.data_dir.join("kubectl-cache"));
        command.arg("--kubeconfig").arg(self.kubeconfig(whose)).args(arguments);
        command
    }
}

fn wait_for_line(child: &mut Child, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
    let stdout = child.stdout.take().ok_or("kubectl has no output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|error| format!("reading kubectl's output: {error}"))?;
        if wanted(&line) {
            return Ok(line);
        }
    }
    Err("the log ended without the line that was waited for".to_owned())
}
