"""Every name of a span, attribute and metric that Tidegate makes, in one place.

Names of OpenTelemetry's semantic conventions (messaging, GenAI, HTTP) are used where they exist.
"""

from __future__ import annotations

MESSAGING_SYSTEM = "messaging.system"
MESSAGING_DESTINATION = "messaging.destination.name"
MESSAGING_OPERATION_NAME = "messaging.operation.name"
MESSAGING_OPERATION_TYPE = "messaging.operation.type"
MESSAGING_MESSAGE_ID = "messaging.message.id"
MESSAGING_BODY_SIZE = "messaging.message.body.size"

GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_PROVIDER = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE = "gen_ai.request.temperature"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"

CLIENT_ID = "tidegate.client.id"
CONNECTIONS = "tidegate.connections"
JOB_ID = "tidegate.job.id"
JOB_KIND = "tidegate.job.kind"
JOB_ATTEMPT = "tidegate.job.attempt"

METRIC_ACTIVE_CONNECTIONS = "tidegate.connections.active"
METRIC_CONNECTIONS = "tidegate.connections"
METRIC_MESSAGES_SENT = "tidegate.messages.sent"
METRIC_MESSAGES_DROPPED = "tidegate.messages.dropped"
METRIC_RECONNECTS = "tidegate.reconnects"
METRIC_CLOSED = "tidegate.connections.closed"
METRIC_REFUSED = "tidegate.connections.refused"
METRIC_DELIVERY_LATENCY = "tidegate.delivery.duration"
METRIC_REPLAYED = "tidegate.messages.replayed"
METRIC_GAPS = "tidegate.gaps"
METRIC_FEED_HOLES = "tidegate.feed.holes"
METRIC_SUBSCRIPTIONS = "tidegate.subscriptions.active"
METRIC_PUBLISHED = "tidegate.messages.published"
METRIC_QUEUE_DEPTH = "tidegate.jobs.queued"
METRIC_JOBS_ACTIVE = "tidegate.jobs.active"
METRIC_JOBS = "tidegate.jobs"
METRIC_TIME_TO_FIRST_TOKEN = "gen_ai.server.time_to_first_token"
METRIC_TOKENS = "gen_ai.client.token.usage"
METRIC_TOKENS_PER_SECOND = "tidegate.ai.tokens_per_second"
