//! How a command ended, in the words that each protocol version has for it.

use serde_json::json;

/// How an exec or attach ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecStatus {
    /// The process ended with this code.
    Code(i32),
    /// It could not be started or followed; the text is for the user.
    Failed(String),
}

/// What the error stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// A `metav1.Status`, always.
    Status,
    /// A text, and nothing when all is well.
    Text,
}

impl Words {
    pub(super) fn of(protocol: &str) -> Words {
        match protocol {
            super::V5 | super::V4 | super::V4_BASE64 => Words::Status,
            _ => Words::Text,
        }
    }

    pub(super) fn tell(self, status: &ExecStatus) -> Option<String> {
        match (self, status) {
            (Words::Text, ExecStatus::Code(0)) => None,
            (Words::Text, ExecStatus::Code(code)) => Some(nonzero(*code)),
            (Words::Text, ExecStatus::Failed(text)) => Some(internal(text)),
            (Words::Status, ExecStatus::Code(0)) => Some(json!({"metadata": {}, "status": "Success"}).to_string()),
            // As the kubelet puts it (kubelet/pkg/cri/streaming/remotecommand exec.go), so that clients find the code.
            (Words::Status, ExecStatus::Code(code)) => Some(
                json!({
                    "metadata": {},
                    "status": "Failure",
                    "message": nonzero(*code),
                    "reason": "NonZeroExitCode",
                    "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
                })
                .to_string(),
            ),
            (Words::Status, ExecStatus::Failed(text)) => Some(
                json!({
                    "metadata": {},
                    "status": "Failure",
                    "message": internal(text),
                    "reason": "InternalError",
                    "details": {"causes": [{"message": text}]},
                    "code": 500,
                })
                .to_string(),
            ),
        }
    }
}

fn nonzero(code: i32) -> String {
    format!("command terminated with non-zero exit code: exit code {code}")
}

fn internal(text: &str) -> String {
    format!("Internal error occurred: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_stands_where_clients_look_for_it() {
        let text = Words::of("v4.channel.k8s.io").tell(&ExecStatus::Code(7)).unwrap();

        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["reason"], "ExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "7");
    }

    #[test]
    fn older_protocols_say_nothing_when_all_is_well() {
        assert_eq!(Words::of("v2.channel.k8s.io").tell(&ExecStatus::Code(0)), None);
        assert!(
            Words::of("")
                .tell(&ExecStatus::Code(1))
                .unwrap()
                .contains("exit code 1")
        );
    }
}
