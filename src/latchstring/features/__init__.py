"""Features that an application switches on. Each is a folder that can be deleted, with its line here.

Features do not import each other; what they share is in `core`.
"""

from latchstring.core.feature import Feature
from latchstring.features.password import PasswordFeature
from latchstring.features.profile import ProfileFeature
from latchstring.features.revocation_feed import RevocationFeedFeature

DEFAULT_FEATURES: tuple[Feature, ...] = (ProfileFeature(), PasswordFeature(), RevocationFeedFeature())
"""The features of the server, and the default of `Auth`."""
