//! Links, addresses and routes, over rtnetlink.
//!
//! A [`Netlink`] belongs to the network namespace of the thread that opened it. Every verb says what shall be, and does nothing
//! where it is so already.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net};
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVtapMode,
};
use rtnetlink::{Handle, LinkBridge, LinkMacVtap, LinkMessageBuilder, LinkUnspec};

/// What the kernel did not do.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No socket.
    #[error("cannot talk to the kernel about links")]
    Socket(#[source] io::Error),
    /// There is no such interface.
    #[error("there is no interface {0}")]
    Missing(String),
    /// The kernel refused.
    #[error("the kernel did not {action} {name}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// Of which interface.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An interface as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether somebody is at its other end: a tap that is open.
    pub carrier: bool,
    /// The bridge it belongs to, by number.
    pub bridge: Option<u32>,
    /// Its Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// A connection to the kernel's routing.
#[derive(Clone, Debug)]
pub struct Netlink {
    pub(crate) handle: Handle,
}

impl Netlink {
    /// Opens one for the network namespace of this thread. Has to be called within a tokio runtime, which carries it.
    pub fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The interface of that name, if there is one.
    pub async fn find(&self, name: &str) -> Result<Option<Link>, LinkError> {
        let mut links = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        let message = match links.try_next().await {
            Ok(message) => message,
            Err(error) if code(&error) == Some(libc::ENODEV) => None,
            Err(error) => return Err(refused("find", name, error)),
        };
        let Some(message) = message else {
            return Ok(None);
        };
        let addresses = self.addresses(name, message.header.index).await?;
        Ok(Some(link(&message, addresses)))
    }

    /// Brings the interface up.
    pub async fn set_up(&self, name: &str) -> Result<(), LinkError> {
        let link = self.get(name).await?;
        if link.up {
            return Ok(());
        }
        let message = LinkUnspec::new_with_index(link.index).up().build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|error| refused("bring up", name, error))
    }

    /// Sets the largest packet.
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), LinkError> {
        let link = self.get(name).await?;
        if link.mtu == mtu {
            return Ok(());
        }
        let message = LinkUnspec::new_with_index(link.index).mtu(mtu).build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|error| refused("set the MTU of", name, error))
    }

    /// Sets the Ethernet address.
    pub async fn set_mac(&self, name: &str, mac: [u8; 6]) -> Result<(), LinkError> {
        let link = self.get(name).await?;
        if link.mac == Some(mac) {
            return Ok(());
        }
        let message = LinkUnspec::new_with_index(link.index)
            .address(mac.to_vec())
            .build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|error| refused("set the address of", name, error))
    }

    /// Makes the interface one of `bridge`'s, or nobody's.
    pub async fn set_bridge(&self, name: &str, bridge: Option<&str>) -> Result<(), LinkError> {
        let link = self.get(name).await?;
        let wanted = match bridge {
            Some(bridge) => Some(self.get(bridge).await?.index),
            None => None,
        };
        if link.bridge == wanted {
            return Ok(());
        }
        let message = LinkUnspec::new_with_index(link.index);
        let message = match wanted {
            Some(index) => message.controller(index),
            None => message.nocontroller(),
        };
        let done = self.handle.link().set(message.build()).execute().await;
        done.map_err(|error| refused("change the bridge of", name, error))
    }

    /// Makes a bridge, without the spanning tree protocol: its ports forward at once.
    pub async fn create_bridge(&self, name: &str) -> Result<(), LinkError> {
        let message = LinkMessageBuilder::<LinkBridge>::new(name).build();
        let done = self.handle.link().add(message).execute().await;
        done.map_err(|error| refused("make the bridge", name, error))
    }

    /// Makes a macvtap over another interface, in bridge mode: those over the same one reach each other and what is behind it.
    pub async fn create_macvtap(
        &self,
        name: &str,
        over: &str,
        mac: [u8; 6],
    ) -> Result<(), LinkError> {
        let lower = self.get(over).await?;
        let message = LinkMacVtap::new(name, lower.index, MacVtapMode::Bridge)
            .address(mac.to_vec())
            .build();
        let done = self.handle.link().add(message).execute().await;
        done.map_err(|error| refused("make the macvtap", name, error))
    }

    /// Names of the interfaces that are no bridges.
    pub async fn plain(&self) -> Result<Vec<String>, LinkError> {
        let mut messages = self.handle.link().get().execute();
        let mut names = Vec::new();
        while let Some(message) = messages
            .try_next()
            .await
            .map_err(|error| refused("list links of", "the host", error))?
        {
            let is_bridge = message.attributes.iter().any(|attribute| {
                matches!(attribute, LinkAttribute::LinkInfo(infos)
                    if infos.contains(&LinkInfo::Kind(InfoKind::Bridge)))
            });
            let name = message.attributes.into_iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            names.extend(name.filter(|_| !is_bridge));
        }
        Ok(names)
    }

    /// Removes the interface, whoever has it open; nothing if there is none.
    pub async fn delete(&self, name: &str) -> Result<(), LinkError> {
        let Some(link) = self.find(name).await? else {
            return Ok(());
        };
        let done = self.handle.link().del(link.index).execute().await;
        match done {
            Err(error) if code(&error) == Some(libc::ENODEV) => Ok(()),
            done => done.map_err(|error| refused("remove", name, error)),
        }
    }

    /// Gives the interface these addresses and no others; link-local ones of IPv6 are the kernel's and stay.
    pub async fn set_addresses(&self, name: &str, wanted: &[IpNet]) -> Result<(), LinkError> {
        let link = self.get(name).await?;
        let own = |address: &&IpNet| !matches!(address.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        for address in wanted
            .iter()
            .filter(|address| !link.addresses.contains(address))
        {
            let add = self
                .handle
                .address()
                .add(link.index, address.addr(), address.prefix_len());
            add.execute()
                .await
                .map_err(|error| refused("add an address to", name, error))?;
        }
        for address in link
            .addresses
            .iter()
            .filter(own)
            .filter(|address| !wanted.contains(address))
        {
            self.delete_address(name, link.index, *address).await?;
        }
        Ok(())
    }

    /// Destinations in the main table, without the default route and those over interfaces that `skip` names.
    pub async fn routes(&self, skip: impl Fn(&str) -> bool) -> Result<Vec<Ipv4Net>, LinkError> {
        let names = self.names().await?;
        let mut routes = self.survey_routes().await?;
        routes.retain(|route| {
            let name = names.iter().find(|(index, _)| *index == route.link);
            route.destination.prefix_len() > 0 && !name.is_some_and(|(_, name)| skip(name))
        });
        Ok(routes.iter().map(|route| route.destination).collect())
    }

    /// Every interface's number and name.
    pub async fn names(&self) -> Result<Vec<(u32, String)>, LinkError> {
        let mut messages = self.handle.link().get().execute();
        let mut names = Vec::new();
        while let Some(message) = messages
            .try_next()
            .await
            .map_err(|error| refused("list links of", "the host", error))?
        {
            let name = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name.clone()),
                    _ => None,
                });
            names.extend(name.map(|name| (message.header.index, name)));
        }
        Ok(names)
    }

    async fn get(&self, name: &str) -> Result<Link, LinkError> {
        self.find(name)
            .await?
            .ok_or_else(|| LinkError::Missing(name.to_owned()))
    }

    async fn addresses(&self, name: &str, index: u32) -> Result<Vec<IpNet>, LinkError> {
        let mut messages = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute();
        let mut addresses = Vec::new();
        while let Some(message) = messages
            .try_next()
            .await
            .map_err(|error| refused("list addresses of", name, error))?
        {
            let local = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = local.or_else(|| {
                message.attributes.iter().find_map(|a| match a {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
            });
            addresses.extend(
                address.and_then(|address| IpNet::new(address, message.header.prefix_len).ok()),
            );
        }
        Ok(addresses)
    }

    async fn delete_address(
        &self,
        name: &str,
        index: u32,
        address: IpNet,
    ) -> Result<(), LinkError> {
        let mut messages = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .set_address_filter(address.addr())
            .execute();
        while let Some(message) = messages
            .try_next()
            .await
            .map_err(|error| refused("list addresses of", name, error))?
        {
            let done = self.handle.address().del(message).execute().await;
            done.map_err(|error| refused("remove an address of", name, error))?;
        }
        Ok(())
    }
}

fn link(message: &LinkMessage, addresses: Vec<IpNet>) -> Link {
    let mut link = Link {
        index: message.header.index,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        bridge: None,
        mac: None,
        addresses,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => {
                link.bridge = Some(*index).filter(|index| *index != 0)
            }
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    link
}

fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

pub(crate) fn refused(action: &'static str, name: &str, error: rtnetlink::Error) -> LinkError {
    let source = match code(&error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error.to_string()),
    };
    LinkError::Refused {
        action,
        name: name.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
