"""The only way out to a customer's host.

Here belongs what decides where the worker may connect to, and what connects: the policy, the one look-up, the
dial to a checked address, TLS with the real name, the loopback proxy for SDKs, the second line. What is said
over a connection belongs to the connectors; a way out that does not pass through here is a hole.

Three ways to use it:
- an HTTP client gets `Proxy.url` as its only proxy and must not read the environment's;
- a driver that takes a socket gets that of `dial`;
- a driver that takes an address (libpq's `hostaddr`) gets one from `resolve` and `require_permitted`.
"""

from headwater_worker.egress import second_line as second_line
from headwater_worker.egress.dial import connect as connect
from headwater_worker.egress.dial import dial as dial
from headwater_worker.egress.dial import require_permitted as require_permitted
from headwater_worker.egress.policy import Address as Address
from headwater_worker.egress.policy import Network as Network
from headwater_worker.egress.policy import Policy as Policy
from headwater_worker.egress.proxy import Failure as Failure
from headwater_worker.egress.proxy import Proxy as Proxy
from headwater_worker.egress.resolve import canonical_host as canonical_host
from headwater_worker.egress.resolve import resolve as resolve
from headwater_worker.egress.tls import handshake as handshake
