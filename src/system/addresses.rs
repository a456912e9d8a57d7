//! The addresses of this host, by way of getifaddrs(3).

use super::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr::null_mut;

/// Whether an address is one of this host's own: a connection that seems to come from there may have been forwarded by us.
///
/// # Errors
/// The kernel did not say.
pub fn is_own(address: IpAddr) -> Result<bool, Errno> {
    let mut first: *mut libc::ifaddrs = null_mut();
    // SAFETY: a place for the list, which is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    let mut found = false;
    let mut next = first.cast_const();
    // SAFETY: the elements of the list are valid until it is freed.
    while let Some(interface) = unsafe { next.as_ref() } {
        // SAFETY: NULL, or a socket address as large as its family says.
        found |= unsafe { ip_address(interface.ifa_addr) } == Some(address);
        next = interface.ifa_next;
    }
    // SAFETY: the list from above, which nothing points to any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// # Safety
/// `address` is NULL or points to a socket address of the size that belongs to its family.
unsafe fn ip_address(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: as promised by the caller.
    match i32::from(unsafe { address.as_ref() }?.sa_family) {
        libc::AF_INET => {
            // SAFETY: as promised by the caller; the alignment is not.
            let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_ours_and_a_documentation_address_is_not() {
        assert_eq!(is_own(Ipv4Addr::LOCALHOST.into()), Ok(true));
        assert_eq!(is_own("192.0.2.1".parse().unwrap()), Ok(false));
        assert_eq!(is_own("2001:db8::1".parse().unwrap()), Ok(false));
    }
}
