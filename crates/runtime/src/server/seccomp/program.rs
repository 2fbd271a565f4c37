//! Rules as a program of the kernel's filter machine (classic BPF over `struct seccomp_data`). Pure.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// What becomes of a call (linux/seccomp.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Allow,
    Log,
    Trap,
    KillThread,
    KillProcess,
    Errno(u32),
}

impl Action {
    fn value(self) -> u32 {
        match self {
            Action::Allow => 0x7fff_0000,
            Action::Log => 0x7ffc_0000,
            Action::Trap => 0x0003_0000,
            Action::KillThread => 0,
            Action::KillProcess => 0x8000_0000,
            Action::Errno(number) => 0x0005_0000 | (number & 0xffff),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// All have to hold.
    pub conditions: Vec<Condition>,
    pub action: Action,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Condition {
    /// Of the argument, from 0 to 5.
    pub index: u8,
    pub test: Test,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Test {
    Equal(u64),
    NotEqual(u64),
    MaskedEqual { mask: u64, value: u64 },
    Greater(u64),
    GreaterOrEqual(u64),
    Less(u64),
    LessOrEqual(u64),
}

// linux/bpf_common.h
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `AUDIT_ARCH_X86_64`, `AUDIT_ARCH_AARCH64`
const THIS_ARCHITECTURE: u32 = if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    0xc000_003e
};

/// Calls of the x32 kind have this bit, and other numbers than their names say.
const X32: u32 = 0x4000_0000;

/// The kernel's `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Instruction {
    code: u16,
    /// How many to skip if the test holds, and if not.
    yes: Way,
    no: Way,
    value: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Skip(u8),
    /// To the end of the rule.
    Out,
}

fn plain(code: u16, value: u32) -> Instruction {
    branch(code, value, Way::Skip(0), Way::Skip(0))
}

fn branch(code: u16, value: u32, yes: Way, no: Way) -> Instruction {
    Instruction { code, yes, no, value }
}

/// The program's bytes: `struct sock_filter` one after the other.
pub fn assemble(default: Action, rules: Vec<(u32, Rule)>) -> Result<Vec<u8>> {
    let mut by_number: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    for (number, rule) in rules {
        by_number.entry(number).or_default().push(rule);
    }
    // Pieces of the range of numbers, each by its first one, with what is done in it.
    let mut pieces: Vec<(u32, Vec<Rule>)> = vec![(0, Vec::new())];
    let mut put = |first: u32, rules: Vec<Rule>| match pieces.last_mut() {
        Some((start, last)) if *start == first => *last = rules,
        Some((_, last)) if *last == rules => {}
        _ => pieces.push((first, rules)),
    };
    for (number, rules) in by_number {
        put(number, simplified(rules, default));
        put(number + 1, Vec::new());
    }

    let other = Action::Errno(libc::ENOSYS as u32).value();
    let mut program = vec![
        plain(LOAD, ARCHITECTURE),
        branch(IF_EQUAL, THIS_ARCHITECTURE, Way::Skip(1), Way::Skip(0)),
        plain(RETURN, other),
        plain(LOAD, NUMBER),
        branch(IF_GREATER_OR_EQUAL, X32, Way::Skip(0), Way::Skip(1)),
        plain(RETURN, other),
    ];
    search(&pieces, default, &mut program);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Error::Invalid(format!(
            "the seccomp profile makes {} instructions; the kernel takes {MAX_INSTRUCTIONS}",
            program.len()
        )));
    }
    Ok(program.into_iter().flat_map(Instruction::bytes).collect())
}

/// Without conditions nothing after a rule is reached; and what does nothing else than the default is none.
fn simplified(mut rules: Vec<Rule>, default: Action) -> Vec<Rule> {
    if let Some(last) = rules.iter().position(|rule| rule.conditions.is_empty()) {
        rules = vec![rules.swap_remove(last)];
    }
    if rules.iter().all(|rule| rule.action == default) {
        return Vec::new();
    }
    rules
}

/// Finds the piece that a number is in by halves, so that a call costs ten comparisons and not three hundred.
fn search(pieces: &[(u32, Vec<Rule>)], default: Action, program: &mut Vec<Instruction>) {
    if pieces.len() < 2 {
        let rules = pieces.first().map_or(&[][..], |(_, rules)| rules.as_slice());
        return leaf(rules, default, program);
    }
    let (lower, upper) = pieces.split_at(pieces.len() / 2);
    program.push(branch(IF_GREATER_OR_EQUAL, upper[0].0, Way::Skip(0), Way::Skip(1)));
    let jump = program.len();
    program.push(plain(JUMP, 0));
    search(lower, default, program);
    // A jump over code is as long as it wants; a branch only 255.
    program[jump].value = (program.len() - jump - 1) as u32;
    search(upper, default, program);
}

fn leaf(rules: &[Rule], default: Action, program: &mut Vec<Instruction>) {
    for rule in rules {
        let mut code: Vec<Instruction> = rule.conditions.iter().flat_map(|condition| condition.code()).collect();
        code.push(plain(RETURN, rule.action.value()));
        let end = code.len();
        for (at, instruction) in code.into_iter().enumerate() {
            let out = Way::Skip((end - at - 1) as u8);
            let resolve = |way: Way| if way == Way::Out { out } else { way };
            program.push(Instruction {
                yes: resolve(instruction.yes),
                no: resolve(instruction.no),
                ..instruction
            });
        }
        if rule.conditions.is_empty() {
            return;
        }
    }
    program.push(plain(RETURN, default.value()));
}

impl Condition {
    /// Goes on behind itself if it holds. The machine has 32 bits: each argument is looked at in two halves.
    fn code(&self) -> Vec<Instruction> {
        let low = ARGUMENTS + 8 * u32::from(self.index);
        let high = low + 4;
        let halves = |value: u64| ((value >> 32) as u32, value as u32);
        let (next, out) = (Way::Skip(0), Way::Out);
        match self.test {
            Test::Equal(value) => {
                let (top, bottom) = halves(value);
                vec![
                    plain(LOAD, high),
                    branch(IF_EQUAL, top, next, out),
                    plain(LOAD, low),
                    branch(IF_EQUAL, bottom, next, out),
                ]
            }
            Test::NotEqual(value) => {
                let (top, bottom) = halves(value);
                vec![
                    plain(LOAD, high),
                    branch(IF_EQUAL, top, next, Way::Skip(2)),
                    plain(LOAD, low),
                    branch(IF_EQUAL, bottom, out, next),
                ]
            }
            Test::MaskedEqual { mask, value } => {
                let ((top_mask, bottom_mask), (top, bottom)) = (halves(mask), halves(value));
                vec![
                    plain(LOAD, high),
                    plain(AND, top_mask),
                    branch(IF_EQUAL, top, next, out),
                    plain(LOAD, low),
                    plain(AND, bottom_mask),
                    branch(IF_EQUAL, bottom, next, out),
                ]
            }
            Test::Greater(value) => ordered(low, high, halves(value), IF_GREATER, (next, out)),
            Test::GreaterOrEqual(value) => ordered(low, high, halves(value), IF_GREATER_OR_EQUAL, (next, out)),
            Test::Less(value) => ordered(low, high, halves(value), IF_GREATER_OR_EQUAL, (out, next)),
            Test::LessOrEqual(value) => ordered(low, high, halves(value), IF_GREATER, (out, next)),
        }
    }
}

/// The upper halves decide unless they are equal.
fn ordered(low: u32, high: u32, (top, bottom): (u32, u32), test: u16, (yes, no): (Way, Way)) -> Vec<Instruction> {
    // Behind all of it, seen from the second instruction and the third.
    let behind = |way: Way, left: u8| if way == Way::Out { Way::Out } else { Way::Skip(left) };
    vec![
        plain(LOAD, high),
        branch(IF_GREATER, top, behind(yes, 3), Way::Skip(0)),
        branch(IF_EQUAL, top, Way::Skip(0), behind(no, 2)),
        plain(LOAD, low),
        branch(test, bottom, yes, no),
    ]
}

impl Instruction {
    fn bytes(self) -> [u8; 8] {
        let skip = |way: Way| match way {
            Way::Skip(count) => count,
            Way::Out => 0,
        };
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        bytes[2] = skip(self.yes);
        bytes[3] = skip(self.no);
        bytes[4..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kernel's machine answers, by the few instructions that we use.
    fn run(program: &[u8], number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&number.to_ne_bytes());
        data.extend_from_slice(&THIS_ARCHITECTURE.to_ne_bytes());
        data.extend_from_slice(&[0; 8]);
        for argument in arguments {
            data.extend_from_slice(&argument.to_le_bytes());
        }
        let (mut at, mut a) = (0, 0);
        loop {
            let code = &program[at * 8..at * 8 + 8];
            let value = u32::from_ne_bytes(code[4..].try_into().unwrap());
            let test = |holds: bool| 1 + usize::from(if holds { code[2] } else { code[3] });
            at += match u16::from_ne_bytes([code[0], code[1]]) {
                LOAD => {
                    let place = value as usize;
                    a = u32::from_ne_bytes(data[place..place + 4].try_into().unwrap());
                    1
                }
                AND => {
                    a &= value;
                    1
                }
                JUMP => 1 + value as usize,
                IF_EQUAL => test(a == value),
                IF_GREATER => test(a > value),
                IF_GREATER_OR_EQUAL => test(a >= value),
                RETURN => return value,
                other => panic!("{other:#x}"),
            };
        }
    }

    fn holds(test: Test, argument: u64) -> bool {
        match test {
            Test::Equal(value) => argument == value,
            Test::NotEqual(value) => argument != value,
            Test::MaskedEqual { mask, value } => argument & mask == value,
            Test::Greater(value) => argument > value,
            Test::GreaterOrEqual(value) => argument >= value,
            Test::Less(value) => argument < value,
            Test::LessOrEqual(value) => argument <= value,
        }
    }

    /// Numbers whose halves meet often.
    fn value() -> impl Strategy<Value = u64> {
        (0u64..3, 0u64..3).prop_map(|(top, bottom)| top << 32 | bottom)
    }

    fn test() -> impl Strategy<Value = Test> {
        prop_oneof![
            value().prop_map(Test::Equal),
            value().prop_map(Test::NotEqual),
            (value(), value()).prop_map(|(mask, value)| Test::MaskedEqual { mask, value }),
            value().prop_map(Test::Greater),
            value().prop_map(Test::GreaterOrEqual),
            value().prop_map(Test::Less),
            value().prop_map(Test::LessOrEqual),
        ]
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            Just(Action::Allow),
            Just(Action::Log),
            (1u32..3).prop_map(Action::Errno)
        ]
    }

    proptest! {
        #[test]
        fn the_program_does_what_the_rules_say(
            rules in proptest::collection::vec(
                (0u32..40, proptest::collection::vec((0u8..6, test()), 0..3), action()), 0..60),
            number in 0u32..42,
            arguments in proptest::array::uniform6(value()),
        ) {
            let default = Action::Errno(1);
            let rules: Vec<(u32, Rule)> = rules
                .into_iter()
                .map(|(number, conditions, action)| {
                    let conditions = conditions.into_iter().map(|(index, test)| Condition { index, test });
                    (number, Rule { conditions: conditions.collect(), action })
                })
                .collect();
            let own: Vec<&Rule> = rules.iter().filter(|(of, _)| *of == number).map(|(_, rule)| rule).collect();
            let met = |rule: &&&Rule| {
                rule.conditions.iter().all(|condition| {
                    holds(condition.test, arguments[usize::from(condition.index)])
                })
            };
            // One without conditions is for all of the call.
            let unconditional = own.iter().find(|rule| rule.conditions.is_empty());
            let chosen = unconditional.or_else(|| own.iter().find(met));
            let expected = chosen.map_or(default, |rule| rule.action).value();

            let program = assemble(default, rules).unwrap();

            prop_assert_eq!(run(&program, number, arguments), expected);
        }
    }
}
