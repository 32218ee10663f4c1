"""What an application switches on. Each folder can be deleted, with its line here; none knows another."""

from latchstring.core.feature import Feature
from latchstring.features.password import PasswordFeature
from latchstring.features.profile import ProfileFeature
from latchstring.features.revocation_feed import RevocationFeedFeature

DEFAULT_FEATURES: tuple[Feature, ...] = (ProfileFeature(), PasswordFeature(), RevocationFeedFeature())
"""What the server switches on."""
