"""Features that an application switches on. Each is a package that can be deleted, with its line in this module.

    password/         sign-up, sign-in, confirmation and password change
    profile/          the signed-in user's own account
    revocation_feed/  revocations for other services, over HTTP

Features do not import each other; what they share is in `core`.
"""

from latchstring.core.feature import Feature
from latchstring.features.password import PasswordFeature
from latchstring.features.profile import ProfileFeature
from latchstring.features.revocation_feed import RevocationFeedFeature

DEFAULT_FEATURES: tuple[Feature, ...] = (ProfileFeature(), PasswordFeature(), RevocationFeedFeature())
"""The features of the server, and the default of `Auth`."""
