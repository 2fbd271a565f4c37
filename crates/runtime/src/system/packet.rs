//! Unix sockets that keep message boundaries and carry file descriptors: how server and supervisor talk. One message is
//! one packet, so no framing can go out of step, and descriptors arrive with the message they belong to.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect,
    listen, recvmsg, sendmsg, socket, socketpair,
};

/// The kernel's default send buffer takes packets up to about 200 KiB; longer messages are refused, not cut.
pub const MAX_PACKET_BYTES: usize = 128 << 10;

/// Enough for the three standard streams and one to spare.
pub const MAX_PACKET_FDS: usize = 4;

pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Socket addresses hold 107 bytes, paths are longer: name the folder by descriptor.
fn short_address(path: &Path) -> io::Result<(OwnedFd, UnixAddr)> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a socket needs a name"))?;
    let folder = nix::fcntl::open(
        folder,
        nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?;
    let mut short = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
    short.extend_from_slice(name.as_bytes());
    let address = UnixAddr::new(Path::new(std::ffi::OsStr::from_bytes(&short)))?;
    Ok((folder, address))
}

pub fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    let (_folder, address) = short_address(path)?;
    bind(fd.as_raw_fd(), &address)?;
    listen(&fd, Backlog::new(16)?)?;
    Ok(fd)
}

pub fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    let (_folder, address) = short_address(path)?;
    connect(fd.as_raw_fd(), &address)?;
    Ok(fd)
}

pub fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let fd = nix::sys::socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: accept4 has just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn send(fd: RawFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    if bytes.len() > MAX_PACKET_BYTES || fds.len() > MAX_PACKET_FDS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "a message of {} bytes is over the limit of {MAX_PACKET_BYTES}",
                bytes.len()
            ),
        ));
    }
    let control = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &control[..0] } else { &control[..] };
    loop {
        match sendmsg::<()>(fd, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => return Ok(()),
            Err(nix::Error::EINTR) => continue,
            Err(e) => return Err(e.into()),
        }
    }
}

/// One message, or `None` at the end of the connection.
pub fn receive(fd: RawFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_PACKET_BYTES];
    let mut space = nix::cmsg_space!([RawFd; MAX_PACKET_FDS]);
    let (length, flags, fds) = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = loop {
            match recvmsg::<()>(fd, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
                Err(nix::Error::EINTR) => continue,
                other => break other?,
            }
        };
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                for fd in raw {
                    // SAFETY: the kernel has just installed these descriptors for us alone.
                    fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        (message.bytes, message.flags, fds)
    };
    if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message over the limit"));
    }
    if length == 0 {
        return Ok(None);
    }
    bytes.truncate(length);
    Ok(Some((bytes, fds)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (a, b) = pair().unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();

        send(a.as_raw_fd(), b"first", &[writer.as_raw_fd()]).unwrap();
        send(a.as_raw_fd(), b"second", &[]).unwrap();
        drop(writer);

        let (bytes, mut fds) = receive(b.as_raw_fd()).unwrap().unwrap();
        assert_eq!(bytes, b"first");
        std::fs::File::from(fds.pop().unwrap()).write_all(b"through").unwrap();
        let mut text = String::new();
        std::fs::File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(receive(b.as_raw_fd()).unwrap().unwrap().0, b"second");
        drop(a);
        assert!(receive(b.as_raw_fd()).unwrap().is_none());
    }

    #[test]
    fn a_message_at_the_limit_passes_and_one_above_is_refused() {
        let (a, b) = pair().unwrap();
        send(a.as_raw_fd(), &vec![7; MAX_PACKET_BYTES], &[]).unwrap();
        assert_eq!(receive(b.as_raw_fd()).unwrap().unwrap().0.len(), MAX_PACKET_BYTES);
        assert!(send(a.as_raw_fd(), &vec![7; MAX_PACKET_BYTES + 1], &[]).is_err());
    }

    #[test]
    fn a_long_path_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(150));
        std::fs::create_dir(&long).unwrap();
        let listener = listen_at(&long.join("sock")).unwrap();
        let client = connect_to(&long.join("sock")).unwrap();
        let server = accept(&listener).unwrap();
        send(client.as_raw_fd(), b"hello", &[]).unwrap();
        assert_eq!(receive(server.as_raw_fd()).unwrap().unwrap().0, b"hello");
    }
}
