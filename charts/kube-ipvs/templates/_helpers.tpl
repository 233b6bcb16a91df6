{{- define "kube-ipvs.name" -}}
{{ .Values.nameOverride | default "kube-ipvs" }}
{{- end -}}

{{- define "kube-ipvs.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "kube-ipvs.name" .) }}
{{- end -}}

{{/* The label by which the DaemonSet finds its pods. It can never change. */}}
{{- define "kube-ipvs.selector" -}}
app.kubernetes.io/name: {{ include "kube-ipvs.name" . }}
{{- end -}}

{{- define "kube-ipvs.labels" -}}
{{ include "kube-ipvs.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "kube-ipvs.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The flags of the init container and of the daemon. The first one writes sysctls by them. */}}
{{- define "kube-ipvs.flags" -}}
- --config=/etc/kube-ipvs/config.conf
- --hostname-override=$(NODE_NAME)
{{- range .Values.flags }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "kube-ipvs.env" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kube-ipvs.mounts" -}}
- name: config
  mountPath: /etc/kube-ipvs
  readOnly: true
- name: record
  mountPath: /run/kube-ipvs
{{- end -}}

{{- define "kube-ipvs.config" -}}
{{- $ours := dict "apiVersion" "kubeproxy.config.k8s.io/v1alpha1" "kind" "KubeProxyConfiguration" -}}
{{- $client := dict "kubeconfig" "/etc/kube-ipvs/kubeconfig.conf" -}}
{{- $ours := merge $ours (dict "clientConnection" $client) -}}
{{- toYaml (merge (deepCopy .Values.config) $ours) -}}
{{- end -}}

{{- define "kube-ipvs.kubeconfig" -}}
apiVersion: v1
kind: Config
clusters:
  - name: default
    cluster:
      certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
      server: {{ required "apiServer.server is required: an address that nodes reach without any Service" .Values.apiServer.server }}
contexts:
  - name: default
    context: {cluster: default, user: default}
current-context: default
users:
  - name: default
    user:
      tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
{{- end -}}

{{/* The port of an address such as 0.0.0.0:10256, [::]:10256 or 10.0.0.1. Arguments: the address, the usual port. */}}
{{- define "kube-ipvs.port" -}}
{{- regexFind ":[0-9]+$" (first .) | trimPrefix ":" | default (last .) -}}
{{- end -}}
