#!/usr/bin/env bash
# Installs the programs that the end-to-end tests run, from Debian's packages,
# without letting any of them start by itself. Does nothing where all are there.
# Where it may not install, it says what is missing; the tests then skip what
# needs it (or fail, with CI=true).
set -euo pipefail

# program:packages. dovecot's parts and PostgreSQL's live outside an ordinary user's PATH.
needs=(
	curl:curl
	fetchmail:fetchmail
	mpop:mpop
	python3:python3
	openssl:openssl
	dovecot:dovecot-core
	/usr/lib/dovecot/pop3-login:dovecot-pop3d
	gcc:gcc,libc6-dev
	testssl:testssl.sh
	sslscan:sslscan
	redis-server:redis-server
	postgres:postgresql
	named:bind9
	nginx:nginx
	/usr/lib/nginx/modules/ngx_mail_module.so:libnginx-mod-mail
	mkpasswd:whois
	mariadbd:mariadb-server
	slapd:slapd
	pgbouncer:pgbouncer
	perdition:perdition
	fail2ban-regex:fail2ban
)

PATH=$PATH:/usr/sbin:/sbin
packages=()
for bin in /usr/lib/postgresql/*/bin; do PATH=$PATH:$bin; done
for need in "${needs[@]}"; do
	command -v "${need%%:*}" >/dev/null && continue
	[[ $need == /* && -e ${need%%:*} ]] && continue # which need not be a program
	IFS=, read -ra more <<<"${need#*:}"
	packages+=("${more[@]}")
done
# Unpacked beside the system and not installed: Debian allows one POP3 server only, and that is Dovecot.
# folder:program:packages
beside=/usr/local/lib/popgate-tests
others=(
	mailutils:usr/sbin/pop3d:mailutils-pop3d
	courier:usr/lib/courier/courier/courierpop3login:courier-pop,courier-base,courier-authlib,courier-authlib-userdb
)
unpack=()
for other in "${others[@]}"; do
	IFS=: read -r folder program from <<<"$other"
	[ -e "$beside/$folder/$program" ] || unpack+=("$folder:${from//,/ }")
done
[ ${#packages[@]} -gt 0 ] || [ ${#unpack[@]} -gt 0 ] || exit 0
wanted="${packages[*]} ${unpack[*]#*:}"

if ! command -v apt-get >/dev/null; then
	echo "The end-to-end tests need what Debian calls: $wanted. Install these with this system's own package manager." >&2
	exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "The end-to-end tests need: $wanted. Install with: sudo $0" >&2
	exit 0
fi

echo "installing for the tests: $wanted"
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
fi
apt-get update -qq
[ ${#packages[@]} -eq 0 ] || apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null >/dev/null

depends() {
	apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@"
}

# unpackBeside FOLDER PACKAGE...: these packages, and those of their libraries that are not there.
unpackBeside() {
	local into=$beside/$1 all libraries missing=() one debs
	shift
	mapfile -t libraries < <(depends "$@" | grep -oE 'Depends: lib[^ ]+' | cut -d' ' -f2 | sort -u)
	mapfile -t all < <({
		printf '%s\n' "$@"
		depends --recurse "${libraries[@]}" | grep -E '^lib'
	} | sort -u)
	for one in "${all[@]}"; do
		dpkg-query -W -f '${Status}' "$one" 2>/dev/null | grep -q 'ok installed' || missing+=("$one")
	done
	debs=$(mktemp -d)
	(cd "$debs" && apt-get download -qq "${missing[@]}" >/dev/null 2>&1) || { # some of the names may be virtual
		for one in "${missing[@]}"; do (cd "$debs" && apt-get download -qq "$one" >/dev/null 2>&1) || true; done
	}
	mkdir -p "$into"
	for one in "$debs"/*.deb; do dpkg -x "$one" "$into"; done
	rm -rf "$debs"
}

for one in "${unpack[@]}"; do
	read -ra from <<<"${one#*:}"
	unpackBeside "${one%%:*}" "${from[@]}"
done
