"""Rules for traffic: who may do what, from where, and when."""

from .config import AccessPolicyConfig, Hours, RuleConfig, Selector
from .plugin import AccessPolicy

__all__ = ["AccessPolicy", "AccessPolicyConfig", "Hours", "RuleConfig", "Selector"]
