# What keeps a package from being removed: lines that still load the module. sudo, sshd and login refuse everybody when a
# line of their stack names a module that is not there, and a line that begins with `-` lets everybody through without a
# code.

# FILE:LINE of each such line. With `ours-aside`, those that pam-auth-update takes out itself are not counted.
uses_of_pam_totp() {
    for file in /etc/pam.conf /etc/pam.d/* /usr/lib/pam.d/*; do
        [ -f "$file" ] || continue
        case $file in
        # No service has such a name.
        *~ | *.dpkg-* | *.ucf-* | *.rpmsave | *.rpmnew | *.rpmorig) continue ;;
        */common-auth | */common-account | */common-password | */common-session | */common-session-noninteractive)
            [ "${1:-}" != ours-aside ] || continue
            ;;
        esac
        sed -n '/^[^#]*pam_totp\.so/=' "$file" | sed "s|^|$file:|"
    done
}

# Says so, if there are any, and fails.
refuse_while_in_use() {
    if [ -e /var/lib/pam_totp/setup.json ]; then
        echo "pam-totp is not removed: a setup waits to be confirmed, and could put back a line that loads the module." >&2
        echo "First: \`pam-totp setup confirm\`." >&2
        return 1
    fi
    uses=$(uses_of_pam_totp "${1:-}")
    [ -n "$uses" ] || return 0
    {
        echo "pam-totp is not removed: without the module nobody could log in through"
        echo "$uses" | sed 's/^/    /'
        echo "Take these lines out first, by hand or with \`pam-totp setup SERVICE --remove\`,"
        echo "and look whether the stacks still ask for something: \`pam-totp doctor\`."
    } >&2
    return 1
}
