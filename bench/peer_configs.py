"""Configurations of the proxies that `peers.py` compares with: one worker, two upstreams."""

from __future__ import annotations

from typing import Any, Final

HAPROXY: Final = """
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option forwardfor
frontend gateway
  bind 127.0.0.1:{port}
  unique-id-format %[uuid()]
  http-request set-header X-Request-Id %[unique-id]
  use_backend sse if {{ path_beg /sse }}
  default_backend web
backend web
  server web 127.0.0.1:{web}
backend sse
  server sse 127.0.0.1:{sse}
"""


def envoy(port: int, web: int, sse: int) -> dict[str, Any]:
    """A static configuration of Envoy."""
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager"
        ".v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/sse"}, "route": {"cluster": "sse"}},
                        {"match": {"prefix": "/"}, "route": {"cluster": "web"}},
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    filters = [{"name": "http", "typed_config": manager}]
    return {
        "static_resources": {
            "listeners": [{"address": address(port), "filter_chains": [{"filters": filters}]}],
            "clusters": [cluster("web", web), cluster("sse", sse)],
        }
    }


def cluster(name: str, port: int) -> dict[str, Any]:
    """An upstream of Envoy, without its limit on connections getting in the way."""
    endpoint = {"endpoint": {"address": address(port)}}
    limits = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}
    return {
        "name": name,
        "connect_timeout": "5s",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def address(port: int) -> dict[str, Any]:
    """A loopback address as Envoy writes it."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def litellm(web: int, sse: int, key: str) -> dict[str, Any]:
    """LiteLLM's proxy with a key and a model on each upstream."""

    def model(name: str, base: str) -> dict[str, Any]:
        options = {"model": "openai/gpt-4o-mini", "api_base": base, "api_key": "none"}
        return {"model_name": name, "litellm_params": options}

    return {
        "model_list": [
            model("gpt-4o-mini", f"http://127.0.0.1:{web}/v1"),
            model("streams", f"http://127.0.0.1:{sse}/sse"),
        ],
        "general_settings": {"master_key": key},
        "litellm_settings": {"telemetry": False},
    }
