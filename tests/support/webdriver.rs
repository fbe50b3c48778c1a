//! A headless Chromium, driven through chromedriver by the WebDriver protocol
//! (<https://www.w3.org/TR/webdriver2/>): JSON over HTTP on the loopback interface.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::skipped;

/// How long anything in the browser may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A browser with one window. Dropping it ends the browser and its driver.
pub struct Browser {
    driver: Child,
    port: u16,
    /// The path of the session below the driver's address; empty before there is one.
    session: String,
    profile: TempDir,
}

impl Browser {
    /// Starts one with a window of this size. `None`, which has then been said, if there is no
    /// Chromium, unless `MINIVMM_REQUIRE_CHROMIUM=1` makes that a failure.
    pub fn start(width: u32, height: u32, dark: bool) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // What it and the browser leave behind goes away with the profile.
        command.env("TMPDIR", profile.path());
        // A group of its own, to be ended as a whole.
        let driver = chromium().map(|program| (program, command.process_group(0).spawn()));
        let missing = match driver {
            Some((program, Ok(driver))) => {
                // From here on, a panic ends the driver.
                let browser = Self { driver, port: 0, session: String::new(), profile };
                return Some(browser.with_session(&program, width, height, dark));
            }
            Some((_, Err(error))) => format!("no chromedriver: {error}"),
            None => "no chromium".to_owned(),
        };
        let required = std::env::var_os("MINIVMM_REQUIRE_CHROMIUM").is_some_and(|one| one == "1");
        assert!(!required, "MINIVMM_REQUIRE_CHROMIUM=1, but there is {missing}");
        skipped(&missing);
        None
    }

    /// The browser itself, through its driver.
    fn with_session(mut self, program: &Path, width: u32, height: u32, dark: bool) -> Self {
        self.port = self.port_of_driver();
        let mut arguments = vec![
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", self.profile.path().display()),
        ];
        if dark {
            arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let capabilities = json!({
            "goog:chromeOptions": { "binary": program, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": LIMIT.as_millis(), "pageLoad": LIMIT.as_millis() },
        });
        let body = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let made = self.request("POST", "/session", &body);
        self.session = format!("/session/{}", made["sessionId"].as_str().unwrap());
        self
    }

    /// The port that the driver says it listens on.
    fn port_of_driver(&mut self) -> u16 {
        let output = self.driver.stdout.take().unwrap();
        let mut said = String::new();
        for line in BufReader::new(output).lines() {
            let line = line.unwrap();
            let port = line.split_once("started successfully on port ").map(|(_, port)| port);
            if let Some(port) = port {
                return port.trim_end_matches('.').parse().unwrap();
            }
            said += &line;
        }
        panic!("chromedriver does not say its port: {said}");
    }

    /// Sends a command, and returns its value.
    #[track_caller]
    fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, value) = exchange(self.port, method, path, body).unwrap();
        assert_eq!(status, 200, "{method} {path}: {value}");
        value
    }

    #[track_caller]
    fn post(&self, command: &str, body: &Value) -> Value {
        self.request("POST", &format!("{}/{command}", self.session), body)
    }

    /// Opens a file.
    pub fn open(&self, path: &Path) {
        self.post("url", &json!({ "url": format!("file://{}", path.display()) }));
    }

    /// The value of an expression.
    #[track_caller]
    pub fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The value of an expression that is a text.
    #[track_caller]
    pub fn text(&self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().unwrap_or_else(|| panic!("{expression} is {value}")).to_owned()
    }

    /// Returns when a condition holds, which the page looks at before each frame.
    #[track_caller]
    pub fn wait_for(&self, condition: &str) {
        let script = format!(
            "const done = arguments[0];
             const look = () => ({condition}) ? done(true) : requestAnimationFrame(look);
             look();"
        );
        self.post("execute/async", &json!({ "script": script, "args": [] }));
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        let body = json!({ "using": "css selector", "value": selector });
        let found = self.post("element", &body);
        let id = found.as_object().and_then(|object| object.values().next()?.as_str());
        id.unwrap_or_else(|| panic!("{selector}: {found}")).to_owned()
    }

    /// Clicks the element that a CSS selector finds.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.post(&format!("element/{}/click", self.element(selector)), &json!({}));
    }

    /// Types into the element that a CSS selector finds.
    #[track_caller]
    pub fn type_into(&self, selector: &str, text: &str) {
        let command = format!("element/{}/value", self.element(selector));
        self.post(&command, &json!({ "text": text }));
    }

    /// Presses keys, one after the other, wherever the focus is.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.post("actions", &json!({ "actions": [keyboard] }));
    }

    /// Does something with the Shift key held down.
    #[track_caller]
    pub fn with_shift(&self, act: impl FnOnce()) {
        let shift = |kind: &str| {
            let actions = [json!({ "type": kind, "value": "\u{e008}" })];
            let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
            self.post("actions", &json!({ "actions": [keyboard] }));
        };
        shift("keyDown");
        act();
        shift("keyUp");
    }

    /// Moves the pointer to the first of some points of the window, and with the button pressed to
    /// the others. So one point is a click.
    #[track_caller]
    pub fn drag(&self, points: &[[i64; 2]]) {
        let go = |[x, y]: &[i64; 2]| json!({ "type": "pointerMove", "x": x, "y": y });
        let mut actions: Vec<Value> = points.iter().map(go).collect();
        actions.insert(1, json!({ "type": "pointerDown", "button": 0 }));
        actions.push(json!({ "type": "pointerUp", "button": 0 }));
        self.pointer(&actions);
    }

    /// Moves the pointer.
    #[track_caller]
    pub fn hover(&self, [x, y]: [i64; 2]) {
        self.pointer(&[json!({ "type": "pointerMove", "x": x, "y": y })]);
    }

    #[track_caller]
    fn pointer(&self, actions: &[Value]) {
        let mouse = json!({ "type": "pointer", "id": "mouse", "actions": actions });
        self.post("actions", &json!({ "actions": [mouse] }));
    }

    /// Turns the wheel over a point of the window.
    #[track_caller]
    pub fn wheel(&self, [x, y]: [i64; 2], down: i64) {
        let turn = json!({ "type": "scroll", "x": x, "y": y, "deltaX": 0, "deltaY": down });
        let wheel = json!({ "type": "wheel", "id": "wheel", "actions": [turn] });
        self.post("actions", &json!({ "actions": [wheel] }));
    }

    /// The window as a PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let path = format!("{}/screenshot", self.session);
        let image = self.request("GET", &path, &Value::Null);
        STANDARD.decode(image.as_str().unwrap()).unwrap()
    }

    /// What the browser has complained about, such as a script's error or a refused request.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("se/log", &json!({ "type": "browser" }));
        log.as_array().unwrap().iter().map(Value::to_string).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser with the session. If it does not, there is nothing to do
        // here, in what may be a failing test.
        if !self.session.is_empty() {
            let _ = exchange(self.port, "DELETE", &self.session, &Value::Null);
        }
        if let Ok(group) = i32::try_from(self.driver.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.driver.wait();
    }
}

/// The browser's program, under one of its names.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut files = std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
    files.find(|file| file.is_file())
}

/// One HTTP request, and the status and the value of its response.
fn exchange(port: u16, method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(2 * LIMIT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let broken = || io::Error::other(format!("a broken response: {line}"));
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| broken())?;
        }
    }
    let mut response = vec![0; length];
    reader.read_exact(&mut response)?;
    let response: Value = serde_json::from_slice(&response)?;
    Ok((status, response["value"].clone()))
}
