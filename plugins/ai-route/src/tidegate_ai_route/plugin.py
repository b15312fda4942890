"""The addon: looks a virtual model up, makes the plan of its call, sends a copy to a mirror."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from tidegate.api import (
    AddonContext,
    Body,
    Denial,
    ErrorCode,
    Exchange,
    Plugin,
    StashKey,
    Upstream,
    hook,
)
from tidegate.api.formats import AI_CALL, AiCall, ai_call, find_format, format_names
from tidegate.api.models import MODELS, VIRTUAL, Models

from .demand import Demand, demand_of
from .options import AiRouteConfig, Share, VirtualModel
from .plan import PLAN, Plan
from .prices import load_prices
from .strategy import Order
from .targets import Candidate, Target

UNAVAILABLE: Final = ErrorCode(
    "model_unavailable", 503, "None of the models behind this name can be asked here."
)
INCAPABLE: Final = ErrorCode(
    "model_not_capable", 400, "No model behind this name can do what the request asks."
)
MODEL_FIELD: Final = b"x-tidegate-model"
MIRRORED: Final = 64
"""Copies that one mirror may have under way, per worker: a slow one gets no more."""
_MIRROR: Final = StashKey["Route"]("ai-route.mirror")


class Route:
    """A virtual model as it runs: its targets, and what was seen of them."""

    def __init__(self, option: VirtualModel) -> None:
        self.option = option
        self.targets = [Target(target) for target in option.targets]
        self.backups = [Target(target) for target in option.fallback.to]
        self.canary = Target(option.canary) if option.canary is not None else None
        self.mirror = Target(option.mirror) if option.mirror is not None else None
        self.order = Order(option.strategy, self.targets)

    def chain(
        self, exchange: Exchange, call: AiCall, models: Models, demand: Demand
    ) -> list[Candidate]:
        """The candidates of a call, in the order in which they are asked.

        Those that have just failed again and again, and those whose context is too small by our
        estimate, are not left out: they are asked last.
        """
        chain = self.order.sort(known(self.targets, models), exchange, call, demand)
        chain += known(self.backups, models)
        if self.canary is not None and chosen(exchange, self.option.canary):
            others = [c for c in chain if c.target.name != self.canary.name]
            chain = known([self.canary], models) + others
        able = [candidate for candidate in chain if demand.met_by(candidate.model)]
        now = exchange.now
        return sorted(able, key=lambda c: (not demand.fits(c.model), c.target.is_out(now)))


class AiRoute(Plugin[AiRouteConfig]):
    """Virtual models: one name for several models."""

    Config = AiRouteConfig
    codes = (UNAVAILABLE, INCAPABLE)

    def __init__(self, config: AiRouteConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._routes = {model.name: Route(model) for model in config.models}
        self._names = tuple(self._routes)

    @hook
    def startup(self, previous: Plugin[Any] | None) -> None:
        """Load what the first call would wait for; keep what was learnt of models as they were."""
        for name in format_names():
            find_format(name)
        if any(model.strategy == "cost" for model in self.config.models):
            load_prices()
        if isinstance(previous, AiRoute):
            for name, route in previous._routes.items():
                if name in self._routes and self._routes[name].option == route.option:
                    self._routes[name] = route

    @hook
    def authorize(self, exchange: Exchange) -> None:
        """Let lists of models show ours."""
        exchange.stash[VIRTUAL] = self._names

    @hook(needs=lambda config: Body(request=True, limit=config.max_body))
    def route(self, exchange: Exchange) -> Upstream | Denial | None:
        """The plan of a call to a virtual model; None: the model is not one of these."""
        copied = exchange.stash.get(_MIRROR)
        if copied is not None:
            return self._mirrored(exchange, copied)
        try:
            call = ai_call(exchange)
        except ValueError:
            return None  # whoever knows the providers says what is wrong with it
        route = self._routes.get(call.request.model) if call is not None else None
        if call is None or route is None:
            return None
        models = exchange.stash.get(MODELS)
        if models is None:
            self.context.log.warning("no addon here knows providers: switch `ai-providers` on")
            return UNAVAILABLE.denial()
        demand = demand_of(call, len(exchange.request.data.content or b""))
        chain = route.chain(exchange, call, models, demand)
        if not chain:
            return self._nothing(route, models, demand)
        option, begun = route.option, None
        if chosen(exchange, option.mirror):
            begun = partial(self._mirror, route=route, call=call, models=models)
        plan = Plan(option.name, chain, option.fallback.on, models, call, begun)
        exchange.stash[PLAN] = plan
        exchange.at_end(self._settle)
        return plan

    def _nothing(self, route: Route, models: Models, demand: Demand) -> Denial:
        """Why no model is left."""
        name = route.option.name
        if not known([*route.targets, *route.backups], models):
            self.context.log.warning("model %s: no provider here has any of its targets", name)
            return UNAVAILABLE.denial()
        wanted = ", ".join(sorted(demand.abilities))
        return INCAPABLE.denial(f"No model behind {name!r} can do what is asked: {wanted}.")

    def _settle(self, exchange: Exchange) -> None:
        """Write down where the call went."""
        plan = exchange.stash[PLAN]
        plan.release()
        count = self.context.counters.add
        count("calls_total")
        if plan.failures and exchange.attempts:
            count("fallbacks_total", len(plan.asked) - 1)
        exchange.notes["ai_route"] = {"model": plan.name, "asked": plan.asked}
        if plan.failures:
            exchange.notes["ai_route"]["failures"] = plan.failures

    @hook
    def transform_response(self, exchange: Exchange) -> None:
        """Tell the caller which model answered."""
        plan = exchange.stash.get(PLAN)
        if plan is not None and plan.asked and self.config.header and exchange.response is not None:
            headers = exchange.response.data.headers
            headers.fields += ((MODEL_FIELD, plan.asked[-1].encode("utf-8", "replace")),)

    # -- mirrors --------------------------------------------------------------------------------

    def _mirror(self, exchange: Exchange, route: Route, call: AiCall, models: Models) -> None:
        """Send a copy of the call beside it. Nothing that goes wrong there reaches the caller."""
        assert route.mirror is not None
        found = known([route.mirror], models)
        try:
            if not found or found[0].target.active >= MIRRORED:
                raise RuntimeError("the mirror is slow, or not here")
            copy = self.context.fetch(exchange)
        except RuntimeError:  # also where this carrier can't
            self.context.counters.add("mirrors_not_sent_total")
            return
        copy.request.data.content = exchange.request.data.content
        copy.stash[_MIRROR] = route
        copy.stash[MODELS] = models
        copy.stash[AI_CALL] = AiCall(call.format, call.request)
        copy.at_end(self._mirror_ended)
        self.context.counters.add("mirrors_sent_total")

    def _mirrored(self, copy: Exchange, route: Route) -> Upstream | Denial:
        assert route.mirror is not None
        models, call = copy.stash[MODELS], copy.stash[AI_CALL]
        demand = demand_of(call, len(copy.request.data.content or b""))
        found = [c for c in known([route.mirror], models) if demand.met_by(c.model)]
        if not found:
            return UNAVAILABLE.denial()
        return Plan(route.option.name, found, (), models, call)

    def _mirror_ended(self, copy: Exchange) -> None:
        if isinstance(copy.upstream, Plan):
            copy.upstream.release()
        failed = copy.denial is not None or (copy.status or 500) >= 400
        self.context.counters.add("mirrors_failed_total" if failed else "mirrors_answered_total")

    @hook
    def cli_commands(self, app: Any) -> None:
        """`tidegate models`."""
        from .cli import verb

        app.command("models", epilog="Example: tidegate models --json")(verb(self.config))

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Which models it has."""
        return f"virtual models {', '.join(self._routes)}"


def known(targets: Sequence[Target], models: Models) -> list[Candidate]:
    """The targets that providers have."""
    found = [(target, models.find(target.name)) for target in targets]
    return [Candidate(target.of(model.team), model) for target, model in found if model is not None]


def chosen(exchange: Exchange, share: Share | None) -> bool:
    """Whether chance takes this call for a share of them."""
    return share is not None and exchange.random.random() * 100.0 < share.percent
