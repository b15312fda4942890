"""The addon: which rules are for a caller, and whether they hold."""

from __future__ import annotations

from typing import Final

from tidegate.api import AddonContext, Body, Denial, Exchange, Plugin, Principal, hook
from tidegate.api.conditions import ADDRESS, MODEL, OPERATION, POLICY
from tidegate.api.expression import Expression, ExpressionError
from tidegate.api.formats import format_names

from .config import AccessPolicyConfig
from .rules import HOURS, Rule, fits

KEPT: Final = 1024
"""Principals whose rules are remembered."""


def _needs(config: AccessPolicyConfig) -> Body | None:
    """Bodies are gathered only where a rule asks for a model."""
    return Body(request=True) if _asks_model(config) else None


def _asks_model(config: AccessPolicyConfig) -> bool:
    for rule in config.rules:
        try:
            when = Expression(rule.when).variables if rule.when else frozenset()
        except ExpressionError:
            continue  # the constructor says so, with the rule's name
        if rule.models is not None or "model" in when:
            return True
    return False


class AccessPolicy(Plugin[AccessPolicyConfig]):
    """Rules for traffic: who may do what, from where, and when.

    All rules that are for a caller must hold; the first one that does not decides.
    """

    Config = AccessPolicyConfig
    codes = (OPERATION, MODEL, ADDRESS, HOURS, POLICY)

    def __init__(self, config: AccessPolicyConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        if _asks_model(config) and not format_names():
            raise ValueError("to know models it needs formats: install tidegate-ai-formats")
        self._rules: list[Rule] = []
        for number, rule in enumerate(config.rules):
            try:
                self._rules.append(Rule(rule, self._failed))
            except ValueError as error:
                raise ValueError(f'rules.{number} ("{rule.name}"): {error}') from None
        self._for: dict[int, tuple[Principal | None, tuple[Rule, ...]]] = {}

    @hook(needs=_needs)
    def authorize(self, exchange: Exchange) -> Denial | None:
        """Deny what a rule that is for this caller does not allow."""
        rules = self._rules_for(exchange.principal)
        for rule in rules:
            failing = rule.failing(exchange)
            if failing is not None:
                exchange.notes["policy"] = {"rule": rule.name, "option": failing.option}
                return failing.code.denial()
        if rules or self.config.default == "allow":
            return None
        exchange.notes["policy"] = {"rule": "", "option": "default"}
        return POLICY.denial()

    def _rules_for(self, principal: Principal | None) -> tuple[Rule, ...]:
        """The rules for a caller. Known callers come as the same object: looked up by that.

        Not by the principal's value: equal ones may differ in their attributes.
        """
        known = self._for.get(id(principal))
        if known is not None and known[0] is principal:
            return known[1]
        rules = tuple(rule for rule in self._rules if fits(rule.whom, principal))
        if len(self._for) >= KEPT:
            self._for.clear()
        self._for[id(principal)] = (principal, rules)  # holds it: its id is no one else's
        return rules

    def _failed(self, rule: str, error: Exception) -> None:
        """An expression raised. Its text may hold values of a request: only its kind is told."""
        self.context.counters.add("expression_errors_total")
        self.context.log.warning('rule "%s": `when` failed: %s', rule, type(error).__name__)

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Which rules held."""
        names = [rule.name for rule in self._rules_for(exchange.principal)]
        if not names:
            return "no rule is for this caller"
        return f"held: {', '.join(names)}"
