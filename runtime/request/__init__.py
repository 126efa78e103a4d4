"""What a user asks for: the table of settings, the ways in which they are given, and the request they make.

`json_form` reads and writes requests as JSON.
"""

from ltxrt.engines.public import public

__all__, __getattr__ = public(
    __name__,
    "completion fields json_form kinds options prompts provenance record sources yaml_file",
    fields="GROUPS OF_A_PASS SETTINGS Scope",
    foreign="FOREIGN",
    keywords="Keywords check_known check_settings",
    kinds="NUMBERS is_number",
    prompts="Line",
    request="Request",
)
