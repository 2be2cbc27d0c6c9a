"""What the two dashboards show: the service as its callers see it, and the pools of its models."""

from infra.grafana.panels import Dashboard, Panel, Query

_RATE = "$__rate_interval"
_MODEL = 'model=~"$model"'


def _quantile(quantile: float, histogram: str, labels: str, by: str) -> str:
    rate = f"rate({histogram}_bucket{labels}[{_RATE}])"
    return f"histogram_quantile({quantile}, sum by ({by}, le) ({rate}))"


def _quantiles(title: str, histogram: str, by: str, labels: str = "", description: str = "") -> Panel:
    queries = [Query(_quantile(each, histogram, labels, by), f"{{{{{by}}}}} p{each * 100:g}") for each in (0.5, 0.99)]
    return Panel(title, tuple(queries), unit="s", description=description)


def _rate(title: str, counter: str, by: str, labels: str = "", unit: str = "reqps") -> Panel:
    return Panel(title, (Query(f"sum by ({by}) (rate({counter}{labels}[{_RATE}]))", f"{{{{{by}}}}}"),), unit=unit)


SERVICE = Dashboard(
    "rerankq-service",
    "rerankq service",
    (
        (
            "Now",
            (
                Panel(
                    "Requests a second",
                    (Query(f"sum(rate(rerankq_http_requests_total[{_RATE}]))"),),
                    "reqps",
                    number=True,
                ),
                Panel(
                    "Failed of all",
                    (
                        Query(
                            f'(sum(rate(rerankq_http_requests_total{{status=~"5.."}}[{_RATE}])) or vector(0)) '
                            f"/ sum(rate(rerankq_http_requests_total[{_RATE}]))"
                        ),
                    ),
                    "percentunit",
                    number=True,
                ),
                Panel(
                    "Jobs waiting",
                    (Query('sum(max by (model, class) (rerankq_pool_jobs{state="queued"}))'),),
                    number=True,
                ),
                Panel("Workers", (Query('sum(max by (model) (rerankq_pool_workers{state="ready"}))'),), number=True),
                Panel("Unfinished batches", (Query("max(rerankq_unfinished_batches)"),), number=True),
                Panel("Dead letters", (Query("max(rerankq_dead_letters)"),), number=True),
            ),
        ),
        (
            "Callers",
            (
                _rate("Rerank requests by outcome", "rerankq_requests_total", "outcome"),
                _rate("Rerank requests by dialect", "rerankq_requests_total", "dialect"),
                _quantiles("Time of a waiting caller", "rerankq_request_duration_seconds", "model"),
            ),
        ),
        (
            "Work",
            (
                _rate("Pairs accepted", "rerankq_requested_pairs_total", "class", unit="pairs/s"),
                Panel(
                    "Pairs answered from the score cache",
                    (
                        Query(
                            f"(sum(rate(rerankq_cached_pairs_total[{_RATE}])) or vector(0)) "
                            f"/ sum(rate(rerankq_requested_pairs_total[{_RATE}]))"
                        ),
                    ),
                    "percentunit",
                ),
                _rate("Refused for load or limits", "rerankq_refusals_total", "reason"),
            ),
        ),
        (
            "Batches and webhooks",
            (
                _rate("Rows of batches", "rerankq_batch_rows_total", "outcome", unit="rows/s"),
                Panel(
                    "Webhook deliveries",
                    (Query(f"max by (outcome) (rate(rerankq_webhook_deliveries_total[{_RATE}]))", "{{outcome}}"),),
                    "reqps",
                ),
                _rate("Reconciler", "rerankq_reconciler_actions_total", "action", unit="short"),
            ),
        ),
        (
            "Processes",
            (
                Panel(
                    "Redis's memory",
                    (
                        Query("max(rerankq_redis_memory_bytes)", "used"),
                        Query("max(rerankq_redis_memory_limit_bytes)", "limit"),
                    ),
                    "bytes",
                ),
                Panel(
                    "Redis round trips a request",
                    (
                        Query(
                            f"sum(rate(rerankq_redis_round_trips_total[{_RATE}])) "
                            f"/ sum(rate(rerankq_http_requests_total[{_RATE}]))"
                        ),
                    ),
                ),
                Panel("Memory of the API", (Query("process_resident_memory_bytes", "{{instance}}"),), "bytes"),
                Panel(
                    "Processor of the API",
                    (Query(f"rate(process_cpu_seconds_total[{_RATE}])", "{{instance}}"),),
                    "cores",
                ),
            ),
        ),
    ),
)

POOL = Dashboard(
    "rerankq-pool",
    "rerankq pools",
    (
        (
            "Size",
            (
                Panel(
                    "Workers",
                    (
                        Query(f"max by (model, state) (rerankq_pool_workers{{{_MODEL}}})", "{{model}} {{state}}"),
                        Query(f"max by (model) (rerankq_pool_desired_workers{{{_MODEL}}})", "{{model}} desired"),
                    ),
                ),
                Panel(
                    "Backlog",
                    (
                        Query(
                            f"max by (model, class, state) (rerankq_pool_jobs{{{_MODEL}}})",
                            "{{model}} {{class}} {{state}}",
                        ),
                    ),
                    description="Unfinished jobs.",
                ),
                Panel(
                    "Oldest job",
                    (Query(f"max by (model) (rerankq_pool_oldest_job_seconds{{{_MODEL}}})", "{{model}}"),),
                    "s",
                ),
            ),
        ),
        (
            "Where the time goes",
            (
                _quantiles("Queue wait", "rerankq_pool_queue_wait_seconds", "class", f"{{{_MODEL}}}"),
                _quantiles("Inference", "rerankq_pool_inference_seconds", "class", f"{{{_MODEL}}}"),
                Panel(
                    "Stages of the starts of an hour",
                    (
                        Query(
                            f"sum by (stage) (increase(rerankq_pool_start_stage_seconds_sum{{{_MODEL}}}[1h])) "
                            f"/ sum by (stage) (increase(rerankq_pool_start_stage_seconds_count{{{_MODEL}}}[1h]))",
                            "{{stage}}",
                        ),
                    ),
                    "s",
                ),
            ),
        ),
        (
            "Throughput",
            (
                _rate("Pairs scored", "rerankq_pool_scored_pairs_total", "model", f"{{{_MODEL}}}", "pairs/s"),
                _rate("Tokens of prompts", "rerankq_pool_prompt_tokens_total", "model", f"{{{_MODEL}}}", "tokens/s"),
                Panel(
                    "Tokens from the prefix cache",
                    (
                        Query(
                            f"sum by (model) (rate(rerankq_pool_prefix_cache_tokens_total{{{_MODEL}}}[{_RATE}])) "
                            f"/ sum by (model) (rate(rerankq_pool_prompt_tokens_total{{{_MODEL}}}[{_RATE}]))",
                            "{{model}}",
                        ),
                    ),
                    "percentunit",
                ),
            ),
        ),
        (
            "Engine",
            (
                _quantiles("Time of a step", "rerankq_pool_engine_step_seconds", "model", f"{{{_MODEL}}}"),
                Panel(
                    "Prompts a step",
                    (
                        Query(
                            f"sum by (model) (rate(rerankq_pool_engine_step_prompts_sum{{{_MODEL}}}[{_RATE}])) "
                            f"/ sum by (model) (rate(rerankq_pool_engine_step_prompts_count{{{_MODEL}}}[{_RATE}]))",
                            "{{model}}",
                        ),
                    ),
                ),
                Panel(
                    "Tokens a step",
                    (
                        Query(
                            f"sum by (model) (rate(rerankq_pool_engine_step_tokens_sum{{{_MODEL}}}[{_RATE}])) "
                            f"/ sum by (model) (rate(rerankq_pool_engine_step_tokens_count{{{_MODEL}}}[{_RATE}]))",
                            "{{model}}",
                        ),
                    ),
                ),
            ),
        ),
        (
            "Trouble",
            (
                _rate("Shards by outcome", "rerankq_pool_shards_total", "outcome", f"{{{_MODEL}}}", "short"),
                Panel(
                    "Failed starts in a row",
                    (Query(f"max by (model) (rerankq_pool_failed_starts{{{_MODEL}}})", "{{model}}"),),
                ),
                _rate(
                    "Results that came too late",
                    "rerankq_pool_rejected_reports_total",
                    "model",
                    f"{{{_MODEL}}}",
                    "short",
                ),
            ),
        ),
    ),
    by_model=True,
)

DASHBOARDS = {"service.json": SERVICE, "pool.json": POOL}
