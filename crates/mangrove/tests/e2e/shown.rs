//! What is another each time (ages, uids, names with random ends) made the same, so that the rest can be compared.

use regex::Regex;

pub struct Words {
    rules: Vec<(Regex, &'static str)>,
    node: String,
}

/// In order: later rules see what earlier ones left.
const RULES: &[(&str, &str)] = &[
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
    (r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", "<token>"),
    (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z", "<time>"),
    (
        r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} [+-]\d{4}",
        "<time>",
    ),
    (r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}\.\d+ [+-]\d{4}", "<time>"),
    (r"/tmp/(LIVE|MERGED)-\d+", "/tmp/$1"),
    (r"/planes/[a-z0-9]{16}", "/planes/<plane>"),
    (r#"resourceVersion: "\d+""#, "resourceVersion: <revision>"),
    (r"(\S+@)?sha256:[0-9a-f]{64}", "<digest>"),
    (r"containerd?://[0-9a-z-]+|mangrove://[0-9a-z-]+", "<container>"),
    (r"\b(10|127|172|192)\.\d{1,3}\.\d{1,3}\.\d{1,3}\b", "<ip>"),
    // A restart is a change of the template that has its time in it.
    (r"\bweb-[a-z0-9]{7,10}-[a-z0-9]{5}\b", "web-<hash>-<end>"),
    (r"\bweb-[a-z0-9]{7,10}\b", "web-<hash>"),
    (r"\bpod-template-hash=[a-z0-9]{7,10}\b", "pod-template-hash=<hash>"),
    (r"\bweb-([a-z0-9]{5})(\s+IPv4)", "web-<end>$2"),
    (r"\bkube-api-access-[a-z0-9]{5}\b", "kube-api-access-<end>"),
    (
        r"\b(\d+d)?(\d+h)?(\d+m)?\d+s\b( ago)?|\b\d+m( ago)?\b|<invalid>",
        "<age>",
    ),
    (r"\d+Ki\b", "<size>"),
    (r"(\d+ )?\(\d+%\)", "<share>"),
    (
        r"^( *)(Machine ID|System UUID|Boot ID|Kernel Version|OS Image|Architecture|Container Runtime Version):.*$",
        "$1$2: <machine>",
    ),
    (r"^( +cpu: +)\d+$", "$1<cpus>"),
    (r"kubernetes.io/arch=\w+", "kubernetes.io/arch=<machine>"),
];

impl Words {
    pub fn new(node: &str) -> Words {
        let compile = |(pattern, with): &(&str, &'static str)| (Regex::new(pattern).expect("a pattern"), *with);
        Words {
            rules: RULES.iter().map(compile).collect(),
            node: node.to_owned(),
        }
    }

    /// What a command said, as it is each time.
    pub fn settled(&self, command: &str, text: &str) -> String {
        let mut lines: Vec<String> = without_owners(text).map(|line| self.line(line)).collect();
        if command.starts_with("rollout status") {
            // How far it was when it was asked is chance; how it ended is not.
            lines = lines.pop().into_iter().collect();
        }
        if command.starts_with("describe") {
            let end = lines.iter().position(|line| line.starts_with("Events:"));
            lines.truncate(end.unwrap_or(lines.len()));
        }
        let mut settled = String::new();
        for line in lines {
            settled += line.trim_end();
            settled.push('\n');
        }
        settled
    }

    fn line(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (rule, with) in &self.rules {
            line = rule.replace_all(&line, *with).into_owned();
        }
        line = replace_word(&line, &self.node, "<node>");
        columns(&line)
    }
}

/// Old kubectls show who owns which fields, in the order of the seconds in which they wrote.
fn without_owners(text: &str) -> impl Iterator<Item = &str> {
    let mut owners: Option<&str> = None;
    text.lines().filter(move |line| {
        let inside = owners.and_then(|indent| line.strip_prefix(indent));
        if inside.is_some_and(|rest| rest.starts_with(['-', ' '])) {
            return false;
        }
        owners = line
            .strip_suffix("managedFields:")
            .filter(|indent| indent.trim().is_empty());
        owners.is_none()
    })
}

/// Columns are as wide as their widest value: two spaces stand for any number. Indents stay.
fn columns(line: &str) -> String {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let (head, rest) = line.split_at(indent);
    let mut settled = head.to_owned();
    let mut spaces = 0;
    for c in rest.chars() {
        if c == ' ' {
            spaces += 1;
            continue;
        }
        settled.push_str(match spaces {
            0 => "",
            1 => " ",
            _ => "  ",
        });
        spaces = 0;
        settled.push(c);
    }
    settled
}

fn replace_word(line: &str, word: &str, with: &str) -> String {
    let pattern = format!(r"\b{}\b", regex::escape(word));
    let rule = Regex::new(&pattern).expect("an escaped word is a pattern");
    rule.replace_all(line, with).into_owned()
}

#[test]
fn what_is_another_each_time_is_the_same() {
    let words = Words::new("vm");

    let one = words.settled(
        "get pods",
        "NAME                   AGE    NODE\nweb-5c56cdccfb-rtpgh   1m2s   vm\n",
    );
    let other = words.settled(
        "get pods",
        "NAME                   AGE   NODE\nweb-5c56cdccfb-vv5bx   3s    vm\n",
    );

    assert_eq!(one, other);
    assert_eq!(one, "NAME  AGE  NODE\nweb-<hash>-<end>  <age>  <node>\n");
}
