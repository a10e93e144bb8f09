"""What the doctor says of Kafka: whether it can be reached as it is told to, and what it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from perdure.schemas.errors import BrokerError

from .application import Application
from .findings import Finding
from .kafka_admin import describe_cluster, describe_replication, forbidden_group
from .kafka_config import ClusterView
from .kafka_rights import ALL, group_rule, lacking, own_rules, subscribed_rule
from .settings import Settings
from .subscriptions import Subscription, by_group
from .topics import dead_letter_topic, plan_topics

_MENDS: Final = (
    ("hostname mismatch", "name the brokers in PERDURE_BOOTSTRAP_SERVERS as their certificates do"),
    ("ip address mismatch", "name the brokers in PERDURE_BOOTSTRAP_SERVERS as their certificates do"),
    ("certificate_verify_failed", "let PERDURE_KAFKA_SSL_CAFILE name the PEM file of the authority of the brokers"),
    ("wrong_version_number", "set PERDURE_KAFKA_SECURITY_PROTOCOL to what that port speaks: it is not TLS"),
    ("record_layer_failure", "set PERDURE_KAFKA_SECURITY_PROTOCOL to what that port speaks: it is not TLS"),
    ("authentication", "mend PERDURE_KAFKA_SASL_USERNAME and PERDURE_KAFKA_SASL_PASSWORD"),
    ("unsupportedsaslmechanism", "set PERDURE_KAFKA_SASL_MECHANISM to one that the brokers have"),
    ("authorization", "grant the user what docs/operations.md lists"),
)

_NAME: Final = "perdure-doctor"

_OTHER_MEND: Final = "start Kafka, or mend PERDURE_BOOTSTRAP_SERVERS and PERDURE_KAFKA_SECURITY_PROTOCOL"


def mend_of(error: BrokerError) -> str:
    """What mends that Kafka cannot be looked at."""
    text = str(error).lower()
    return next((mend for symptom, mend in _MENDS if symptom in text), _OTHER_MEND)


async def examine_kafka(settings: Settings, application: Application | None, *, target: str) -> list[Finding]:
    """Look at the brokers and, where there is an application, at its topics.

    Raises:
        BrokerError: Kafka cannot be looked at.
    """
    services = [] if application is None else list(application.services)
    plans = plan_topics(
        settings.namespace,
        services,
        partitions=settings.topic_partitions,
        replication_factor=settings.topic_replication_factor,
    )
    subscribed = {} if application is None else by_group(application.subscriptions, settings.namespace)
    names = [plan.name for plan in plans]
    names += sorted({each.topic for group in subscribed.values() for each in group}.difference(names))
    view = await describe_cluster(settings.kafka_config(client_id=_NAME), names, rights=True)
    brokers = f"{len(view.brokers)} broker" + ("s" if len(view.brokers) != 1 else "")
    findings = [Finding("ok", "Kafka", f"{settings.bootstrap_servers}: {brokers}, cluster {view.cluster_id}")]
    if application is None:
        return findings
    findings += await _rights(settings, view, [plan.name for plan in plans], subscribed)
    for plan in plans:
        partitions = view.topics.get(plan.name)
        if partitions is None and plan.name in view.operations:
            continue
        if partitions is None:
            mend = f"perdure topics create {target}, or start a worker"
            findings.append(Finding("problem", "topic", f"{plan.name} is not there.", mend))
        else:
            findings.append(Finding("ok", "topic", f"{plan.name}: {_partitions(partitions)}"))
    findings += await _copies(settings, view)
    read = [(group, each) for group, several in subscribed.items() for each in several]
    return findings + [_subscription(group, each, view) for group, each in read if _told(view, each.topic)]


def _told(view: ClusterView, topic: str) -> bool:
    return topic in view.topics or topic not in view.operations


async def _rights(
    settings: Settings, view: ClusterView, own: Sequence[str], subscribed: Mapping[str, Sequence[Subscription]]
) -> list[Finding]:
    """What the user lacks that the brokers' access rules do not give; nothing where there are none."""
    user, findings = settings.kafka_sasl_username or "ANONYMOUS", []

    def lacks(what: str, rule: str) -> None:
        mend = f"kafka-acls.sh --bootstrap-server {settings.bootstrap_servers} --add {rule}"
        findings.append(Finding("problem", "rights", f"The user {user} lacks rights: {what}.", mend))

    topics, *_ = own_rules(settings.namespace, user=user)
    for topic in own:
        # Dead letters are read by people only, who are told then.
        needed = ("write",) if topic == dead_letter_topic(settings.namespace) else ("read", "write")
        if missing := lacking(view.operations.get(topic, ALL), *needed):
            lacks(f"{' and '.join(missing)} on the topic {topic}", topics)
    for topic in sorted({each.topic for several in subscribed.values() for each in several}):
        if lacking(view.operations.get(topic, ALL), "read"):
            lacks(f"read on the topic {topic}", subscribed_rule(topic, user=user))
    seen = next((topic for topic in own if not lacking(view.operations.get(topic, 0), "describe")), None)
    if seen is not None:
        config = settings.kafka_config(client_id=_NAME)
        for group in (settings.namespace, *subscribed):
            if await forbidden_group(replace(config, group_id=group), seen):
                lacks(f"read on the group {group}", group_rule(group, user=user))
    return findings


def _subscription(group: str, subscription: Subscription, view: ClusterView) -> Finding:
    partitions = view.topics.get(subscription.topic)
    if partitions is None:
        found = f"{subscription.topic} is not there, and {subscription.target} is subscribed to it."
        return Finding("problem", "subscription", found, "create the topic, or correct the subscription")
    text = f"{subscription.topic}: {_partitions(partitions)} to {subscription.target} as the group {group}"
    return Finding("ok", "subscription", text)


def _partitions(count: int) -> str:
    return f"{count} partition" + ("s" if count != 1 else "")


async def _copies(settings: Settings, view: ClusterView) -> list[Finding]:
    """What one broker that dies for good would take along; nothing where there is only one."""
    if len(view.brokers) < 2:
        return []
    findings = []
    least = await describe_replication(settings.kafka_config(client_id=_NAME), sorted(view.topics))
    for topic, copies in sorted(view.copies.items()):
        if copies < 2:
            found = f"{topic} is on {copies} broker: what nobody has admitted yet goes with it."
            mend = f"kafka-reassign-partitions.sh --topics-to-move-json-file ... for {topic}, with 3 replicas each"
            findings.append(Finding("problem", "topic", found, mend))
        elif least.get(topic, copies) < 2:
            found = f"{topic} acknowledges what one broker has: min.insync.replicas is {least[topic]}."
            config = f"--alter --entity-type topics --entity-name {topic} --add-config min.insync.replicas=2"
            mend = f"kafka-configs.sh --bootstrap-server {settings.bootstrap_servers} {config}"
            findings.append(Finding("problem", "topic", found, mend))
    return findings
