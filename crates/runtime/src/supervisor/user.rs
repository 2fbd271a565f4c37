//! From names to numbers, by the files of the container's own root. Pure.

use super::plan::{ImageGroups, ResolvedUser, UserPlan};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("the image has no user {0:?} in its /etc/passwd")]
    UnknownUser(String),
    #[error("the image has no group {0:?} in its /etc/group")]
    UnknownGroup(String),
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

fn passwd(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(PasswdEntry { name, uid, gid })
    })
}

fn group(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

/// Who the process runs as, the request before the image, numbers before names.
pub fn resolve(plan: &UserPlan, passwd_text: &str, group_text: &str) -> Result<ResolvedUser, UserError> {
    let (image_user, image_group) = match plan.image.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (plan.image.as_str(), None),
    };
    let from_image = plan.uid.is_none() && plan.name.is_none();
    let wanted = match (&plan.uid, &plan.name) {
        (Some(uid), _) => uid.to_string(),
        (None, Some(name)) => name.clone(),
        (None, None) if image_user.is_empty() => "0".to_owned(),
        (None, None) => image_user.to_owned(),
    };
    let entry = passwd(passwd_text).find(|entry| entry.name == wanted || entry.uid.to_string() == wanted);
    let uid = match (&entry, wanted.parse()) {
        (Some(entry), _) => entry.uid,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => return Err(UserError::UnknownUser(wanted)),
    };
    let gid = match (plan.gid, image_group.filter(|g| from_image && !g.is_empty())) {
        (Some(gid), _) => gid,
        (None, Some(name)) => match (group(group_text).find(|(n, _, _)| *n == name), name.parse()) {
            (Some((_, gid, _)), _) => gid,
            (None, Ok(gid)) => gid,
            (None, Err(_)) => return Err(UserError::UnknownGroup(name.to_owned())),
        },
        (None, None) => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut groups = plan.groups.clone();
    if let (Some(entry), ImageGroups::Merge) = (&entry, plan.image_groups) {
        groups.extend(
            group(group_text)
                .filter(|(_, _, members)| members.split(',').any(|member| member == entry.name))
                .map(|(_, gid, _)| gid),
        );
    }
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(ResolvedUser { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/:/bin/false\nbroken line\n";
    const GROUP: &str = "root:x:0:\nweb:x:44:\nlogs:x:50:web,other\nstaff:x:60:web\n";

    fn user(plan: UserPlan) -> Result<(u32, u32, Vec<u32>), UserError> {
        resolve(&plan, PASSWD, GROUP).map(|u| (u.uid, u.gid, u.groups))
    }

    #[test]
    fn requests_come_before_the_image_and_numbers_need_no_files() {
        let image = |text: &str| UserPlan {
            image: text.into(),
            ..UserPlan::default()
        };
        assert_eq!(user(UserPlan::default()), Ok((0, 0, vec![0])));
        assert_eq!(user(image("web")), Ok((33, 44, vec![44, 50, 60])));
        assert_eq!(user(image("33")), Ok((33, 44, vec![44, 50, 60])));
        assert_eq!(user(image("web:logs")), Ok((33, 50, vec![50, 60])));
        assert_eq!(user(image("1000:2000")), Ok((1000, 2000, vec![2000])));
        assert_eq!(user(image("nobody")), Err(UserError::UnknownUser("nobody".into())));
        assert_eq!(user(image("web:none")), Err(UserError::UnknownGroup("none".into())));
        assert_eq!(
            user(UserPlan {
                uid: Some(7),
                groups: vec![9],
                image: "web:logs".into(),
                ..UserPlan::default()
            }),
            Ok((7, 0, vec![0, 9]))
        );
        assert_eq!(
            user(UserPlan {
                name: Some("web".into()),
                gid: Some(5),
                image_groups: ImageGroups::Strict,
                ..UserPlan::default()
            }),
            Ok((33, 5, vec![5]))
        );
    }
}
