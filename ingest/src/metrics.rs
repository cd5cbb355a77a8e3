//! What is counted of the gateway.

runtime::metrics! {
    /// What is counted of the gateway.
    pub struct GatewayMetrics {
        /// By route and status.
        http_requests: Counter["route", "status"] = "milestream_http_requests_total", "HTTP requests";
        /// From the request's head.
        http_seconds: Histogram["route"] = "milestream_http_request_seconds", "Seconds to the response's head";
        /// Longer than a minute. Act when it stays above 0: uploads were accepted and go nowhere.
        overdue: Gauge[] = "milestream_reserved_uploads_overdue", "Reserved uploads that have not been published in time";
        /// Each is in the log of every round. Act above 0: they are too large for the topic, or for the producer's `message.max.bytes`.
        refused: Gauge[] = "milestream_reserved_uploads_refused", "Reserved uploads that Kafka will not take as they are, while the others were published";
        /// `accepted`, `duplicate`, `refused`. Act when the last keeps growing.
        chain_steps: Counter["outcome"] = "milestream_chain_steps_total", "Steps of the chain that watchers sent to the gateway";
    }
}
