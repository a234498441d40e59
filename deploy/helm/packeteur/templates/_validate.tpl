{{/* Rejects combinations of values that cannot work. Single values are validated by values.schema.json. */}}
{{- define "packeteur.validate" -}}
{{- $values := .Values }}
{{- if and (eq $values.mode "none") (not $values.collector.enabled) }}
{{- fail "mode is `none` and collector.enabled is false: there is nothing to install" }}
{{- end }}
{{- if and (eq $values.mode "capture") (not $values.relayEndpoint) (not $values.collector.enabled) }}
{{- fail "mode is `capture` but there is no collector to send to: set collector.enabled, or set relayEndpoint to an external collector" }}
{{- end }}
{{- if and $values.relayEndpoint (ne $values.mode "capture") }}
{{- fail (printf "relayEndpoint is `%s`, but mode is `%s`: only captures send packets" $values.relayEndpoint $values.mode) }}
{{- end }}
{{- if and (ne $values.mode "none") (not $values.devices) (not (hasKey $values.settings "TZSP_PORT")) (not (hasKey $values.settings "READ_FILE")) }}
{{- fail "devices is empty, and neither settings.TZSP_PORT nor settings.READ_FILE is set" }}
{{- end }}
{{- $reserved := dict "MODE" "mode" "DEVICE" "devices" "FILTER" "filter" "OBSERVE" "observe" "RELAY_ENDPOINT" "relayEndpoint" "METRICS_ADDRPORT" "metricsPort" "WEB_CONFIG_FILE" "webConfig.secret" "KEY_FILE" "keys.secret" "COLLECTOR_KEY" "keys.collectorKey" }}
{{- range $name, $_ := $values.settings }}
{{- with index $reserved $name }}
{{- fail (printf "settings.%s: set the value `%s` instead" $name .) }}
{{- end }}
{{- end }}
{{- $reserved = dict "MODE" "collector.enabled" "OBSERVE" "collector.observe" "COLLECT_ENDPOINT" "collector.ports.relay" "METRICS_ADDRPORT" "collector.ports.metrics" "OUTPUT" "collector.output" "WEB_CONFIG_FILE" "webConfig.secret" "KEY_FILE" "collector.keys.secret" "AUTHORIZED_KEYS" "collector.keys.authorizedKeys" }}
{{- range $name, $_ := $values.collector.settings }}
{{- with index $reserved $name }}
{{- fail (printf "collector.settings.%s: set the value `%s` instead" $name .) }}
{{- end }}
{{- end }}
{{- $keys := $values.keys }}
{{- if ne (empty $keys.secret) (empty $keys.collectorKey) }}
{{- fail "keys: set both secret and collectorKey, or neither" }}
{{- end }}
{{- if ne (empty $values.collector.keys.secret) (empty $values.collector.keys.authorizedKeys) }}
{{- fail "collector.keys: set both secret and authorizedKeys, or neither" }}
{{- end }}
{{- if and $keys.secret (ne $values.mode "capture") }}
{{- fail (printf "keys.secret is `%s`, but mode is `%s`: only captures send packets" $keys.secret $values.mode) }}
{{- end }}
{{- if and $values.collector.keys.secret (not $values.collector.enabled) }}
{{- fail "collector.keys has no effect, because collector.enabled is false" }}
{{- end }}
{{- if and (eq $values.mode "capture") (not $values.relayEndpoint) (ne (empty $keys.secret) (empty $values.collector.keys.secret)) }}
{{- fail "keys and collector.keys: set both or neither, because captures and their collector cannot connect otherwise" }}
{{- end }}
{{- if eq (int $values.collector.ports.relay) (int $values.collector.ports.metrics) }}
{{- fail (printf "collector.ports: relay and metrics are both %d" (int $values.collector.ports.relay)) }}
{{- end }}
{{- if and $values.collector.enabled $values.collector.hostNetwork (ne $values.mode "none") (has (int $values.metricsPort) (list (int $values.collector.ports.relay) (int $values.collector.ports.metrics))) }}
{{- fail (printf "metricsPort %d is also a port of the collector, and with collector.hostNetwork both are the node's" (int $values.metricsPort)) }}
{{- end }}
{{- if and $values.collector.hostNetwork $values.networkPolicy.enabled }}
{{- fail "networkPolicy.enabled has no effect on a pod in the node's network: with collector.hostNetwork use the nodes' firewall" }}
{{- end }}
{{- if and $values.serviceMonitor.enabled (not $values.collector.enabled) }}
{{- fail "serviceMonitor.enabled is about the collector, but collector.enabled is false: to scrape the nodes use podMonitor.enabled" }}
{{- end }}
{{- if and $values.podMonitor.enabled (eq $values.mode "none") }}
{{- fail "podMonitor.enabled is about the nodes, but mode is `none`: to scrape the collector use serviceMonitor.enabled" }}
{{- end }}
{{- end }}
